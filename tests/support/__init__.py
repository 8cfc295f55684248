"""What tests share: a kernel's end of the socket, strategies, checks for tools."""
