"""What a pair of models does before any training: `python -m experiments.diagnose`."""
