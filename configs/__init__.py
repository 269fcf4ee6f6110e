"""One get_config(arg) for each family of experiments."""
