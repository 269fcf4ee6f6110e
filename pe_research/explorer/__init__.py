"""A page, and figures, that show what positional schemes do."""
