"""Where planned runs are executed."""
