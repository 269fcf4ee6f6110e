"""Engines that start machines: Google Cloud, Slurm, SkyPilot, xpk."""
