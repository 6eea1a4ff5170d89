"""The tables and pictures of a study."""
