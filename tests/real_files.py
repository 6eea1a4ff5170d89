"""Real data and the Qwen3 tokenizer, where a machine has them: the project installs without.

`MOTAB_REAL_DATA` names the folder; by default it is `shared/data` beside the repository.
"""

import os
from pathlib import Path

DATA = Path(
    os.environ.get("MOTAB_REAL_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data"
)
QWEN3 = DATA / "qwen3_tokenizer"
