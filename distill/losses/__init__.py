"""Divergences, estimators, and losses over trajectories."""
