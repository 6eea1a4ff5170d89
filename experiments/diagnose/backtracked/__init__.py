"""Does backtracking pay? Breached texts written anew from several of their steps."""
