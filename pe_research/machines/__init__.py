"""The processes and machines that a run uses."""
