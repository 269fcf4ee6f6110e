"""What starts machines: Google Cloud, Slurm, SkyPilot, xpk."""
