"""The controller: a Beta policy over exposure, what it sees, and how it is updated."""
