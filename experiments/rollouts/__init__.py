"""Trajectories: how they are written, kept and read again."""
