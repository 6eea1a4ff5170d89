"""Running, evaluating and exporting: data, files and the training loop."""

import os

from distill import __version__
from distill.shadowing import require_ours

require_ours("configs")
# transformers says on import that torch is missing; nothing here needs it.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

__all__ = ["__version__"]
