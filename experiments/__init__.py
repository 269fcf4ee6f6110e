"""Sweeps as data, their comparison, and what is drawn from it."""
