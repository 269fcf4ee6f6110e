"""The processes and machines that a run is on."""
