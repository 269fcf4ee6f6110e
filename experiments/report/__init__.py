"""Reports of sweeps and of claims."""
