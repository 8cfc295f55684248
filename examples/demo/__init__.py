"""The demo that ``make demo`` runs: see docs/demo.md."""
