"""Rollouts that student, teacher and data share: ImitKD, SKD and GKD."""
