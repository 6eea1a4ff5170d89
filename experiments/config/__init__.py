"""How a config is read and checked."""
