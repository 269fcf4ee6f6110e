"""The training loop, its step, state and record."""
