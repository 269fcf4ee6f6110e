"""A controlled experiment on positional schemes: train short, test long, change nothing else."""

import time

IMPORTED = time.time()  # when the first of these modules was read
