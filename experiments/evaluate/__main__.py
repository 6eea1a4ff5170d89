"""`python -m experiments.evaluate`: see `experiments.evaluate.evaluation`."""

import sys

from experiments.evaluate.evaluation import main

if __name__ == "__main__":
    sys.exit(main())
