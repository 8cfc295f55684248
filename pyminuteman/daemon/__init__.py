"""The daemon: what it is composed of, and what runs around it."""
