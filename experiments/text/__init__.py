"""Text that several rooms read the same way."""
