"""The daemon: what the libraries are composed to, and what it shows of itself."""
