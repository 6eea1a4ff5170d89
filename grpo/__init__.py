"""GRPO: a clipped surrogate of group advantages. arXiv 2402.03300."""
