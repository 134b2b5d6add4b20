"""Drills: what the pipeline survives, done for real and counted (docs/reliability.md)."""
