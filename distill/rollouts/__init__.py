"""Rollouts of one model, and how a text becomes trajectories."""
