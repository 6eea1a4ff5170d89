"""`read_config`: from what a config file gives to the tree that everything else is handed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.config.checks import check_config
from experiments.config.reading import field_types, nearest, plain_fields, read_section
from experiments.config.tree import METHODS, Config


def read_config(fields: Mapping[str, Any]) -> Config:
    """The tree of a config, each field known and in range, and all of them in agreement.

    Args:
      fields: a `ConfigDict`, or nested dicts such as those of a config.json.

    Raises:
      ValueError: names the field with its whole path, and where it is unknown the nearest one.
    """
    given = plain_fields(fields, "")
    if "method" not in given:
        raise ValueError("method is missing.")
    method = given["method"]
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(f"method={method!r}: choose one of {tuple(METHODS)}.")
    kind = METHODS[method]
    for name in given:
        if name not in field_types(kind):
            _refuse(name, method, kind)
    config = read_section(kind, given)
    check_config(config)
    return config


def _refuse(name: str, method: str, kind: type[Config]) -> None:
    """Raises for a field of the whole config that a method does not have."""
    known = field_types(kind)
    elsewhere = [m for m, other in METHODS.items() if name in field_types(other)]
    if elsewhere:
        raise ValueError(
            f"{name}: method={method!r} reads no such section; {', '.join(elsewhere)} would. "
            f"Remove it. The fields are {', '.join(known)}."
        )
    raise ValueError(
        f"{name}: there is no such field; there are {', '.join(known)}. The nearest is "
        f"{nearest(name, known)}."
    )
