"""One file per measurement of our own; each has `measure(session)`."""
