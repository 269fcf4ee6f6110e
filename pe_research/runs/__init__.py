"""The folder of a run, its checkpoints, and runs that start from other runs."""
