"""Speed and memory against other libraries: `python -m experiments.bench --help`."""
