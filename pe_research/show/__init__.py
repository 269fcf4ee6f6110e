"""Cards, drawings and the explorer."""
