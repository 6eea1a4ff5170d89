"""Reasoning steps: where they end, and what they are worth."""
