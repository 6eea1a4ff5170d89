"""A run's directory: what is written there, and who is told."""
