"""Sampling, grading and intervals: `python -m experiments.evaluate`."""
