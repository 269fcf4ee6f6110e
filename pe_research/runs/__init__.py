"""What a run leaves behind, and what another run makes of it."""
