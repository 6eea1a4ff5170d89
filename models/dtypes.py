"""The types that numbers of a model may have, by name."""

from __future__ import annotations

from typing import Any

import ml_dtypes  # noqa: F401  (teaches numpy bfloat16)
import numpy as np

DTYPES = ("float32", "bfloat16", "float16")


def dtype_name(dtype: Any, where: str = "dtype") -> str:
    """One of `DTYPES`, from its name or from what numpy and JAX call by it, such as `jnp.bfloat16`.

    Args:
      where: what an error calls the argument or field.

    Raises:
      ValueError: it is none of them.
    """
    try:
        name = np.dtype(dtype).name if dtype is not None else None
    except (TypeError, ValueError):
        name = None
    if name not in DTYPES:
        raise ValueError(f"{where}={dtype!r:.200}; supported are {', '.join(map(repr, DTYPES))}.")
    return name
