"""Drills: what the project survives, in figures."""
