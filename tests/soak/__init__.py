"""Churn on a cluster of real daemons, with checkers on: see docs/soak.md."""
