"""How a config is read, completed and checked."""
