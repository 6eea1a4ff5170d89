"""MOTAB's synthesis, whole, in parts, and as a literal loop."""
