"""The daemon: what the libraries are composed to, what it shows of itself, and what runs around it."""
