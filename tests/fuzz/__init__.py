"""Fuzzing the decoder: the harness, how it is built, and the seeds."""
