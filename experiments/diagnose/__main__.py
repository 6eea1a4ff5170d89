"""`python -m experiments.diagnose`: see `experiments.diagnose.diagnosis`."""

import sys

from experiments.diagnose.diagnosis import main

if __name__ == "__main__":
    sys.exit(main())
