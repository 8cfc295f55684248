"""VIPs: what they are, what labels say of them, which addresses their names have, and what the kernel should hold for them."""
