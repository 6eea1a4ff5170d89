"""Fields of logged records as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def column(records: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """One field of all records, [n] float; what is missing, or was not finite, as nan or inf."""
    return np.array([float(record.get(name, "nan")) for record in records])
