"""SDAR: GRPO, and a pull towards a teacher that cannot grow large.

    python -m experiments.run --config configs/sdar.py
    python -m experiments.run --config configs/sdar.py:smoke  the same code in seconds

SDAR (2605.15155) adds a tenth of a policy gradient whose advantage is sigma(5 (log q - log p)). The
teacher is here another model; nothing published is known to us for this task.
"""

import ml_collections

from configs import common

ARGUMENTS = ("", "smoke")


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The config of the variant `arg`.

    Raises:
      ValueError: there is no such variant.
    """
    _, small = common.parse("sdar.py", arg, [""])
    config = common.planned("sdar", {"weight": 0.1, "sharpness": 5.0})
    if small:
        common.smoke(config)
    return config
