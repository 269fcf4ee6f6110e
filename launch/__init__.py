"""Runs planned jobs: on this machine, a cluster or a cloud."""
