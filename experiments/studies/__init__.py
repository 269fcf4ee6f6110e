"""Studies: planned, run, compared and decided."""
