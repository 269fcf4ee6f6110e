"""Scheme cards, drawings and the explorer."""
