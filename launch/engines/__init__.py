"""Engines that start machines: Google Cloud, Kubernetes, Slurm, SkyPilot."""
