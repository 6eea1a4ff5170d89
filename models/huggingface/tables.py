"""What fields of a `config.json` that is not ours may hold without changing the model.

`config_fields.toml` lists three kinds: those that are read; pinned ones, which change what is
computed, except at the values listed; and those that do nothing in a dense decoder, whatever they
hold. Any other field raises, unless it is null, which says that it is not set: a field that nothing
reads is how a port goes wrong in silence.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

_FILE = Path(__file__).with_name("config_fields.toml")
_TABLES: dict[str, Any] = tomllib.loads(_FILE.read_text(encoding="utf-8"))

DEFAULTS: dict[str, Any] = _TABLES["defaults"]
FAMILIES: dict[str, dict[str, int]] = _TABLES["families"]
ON_IN_FAMILY = {name: family for family, names in _TABLES["on_in_family"].items() for name in names}
PINNED = {name: pin["values"] for pin in _TABLES["pinned"] for name in pin["fields"]}
KNOWN = {*PINNED, *ON_IN_FAMILY, *_TABLES["read"], *_TABLES["bookkeeping"], *_TABLES["generation"]}
