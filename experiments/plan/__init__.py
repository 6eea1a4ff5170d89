"""What a run needs on a mesh: `python -m experiments.plan`."""
