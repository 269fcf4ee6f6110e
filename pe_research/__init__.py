"""A controlled experiment on positional schemes: train short, test long, change nothing else."""
