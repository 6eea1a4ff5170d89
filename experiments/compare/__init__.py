"""A study in one command: every arm, every seed, one table. See `experiments.compare.execute`."""
