"""The replicated store: what each node says, and what all may change, the same on every node before long."""
