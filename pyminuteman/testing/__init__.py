"""Doubles, and a real kernel, for tests: ours and yours. Nothing that is shipped for production imports this."""
