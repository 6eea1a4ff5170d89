"""Accuracy, loss and mismatch against the exposure of the teacher, for any model."""
