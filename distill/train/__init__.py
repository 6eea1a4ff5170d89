"""The optimizer's step, its state and its shardings."""
