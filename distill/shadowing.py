"""Other packages that take the place of ours: `models` and its like are common names."""

from __future__ import annotations

import importlib.util
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
# What only our own `__init__.py` says.
_MARKS = {"models": b"load_pretrained"}


def require_ours(*names: str) -> None:
    """Raises where an import of one of these packages would not find the one beside this one.

    Nothing of theirs is run to find out.

    Raises:
      ImportError: names the path that is in the way, and says what to do.
    """
    for name in names:
        spec = importlib.util.find_spec(name)
        found = None if spec is None or spec.origin is None else Path(spec.origin).resolve()
        ours = HOME / name / "__init__.py"
        if found is None:
            raise ImportError(
                f"This installation has no package {name!r} beside {HOME / 'distill'}. Install it anew: "
                "pip install --force-reinstall motab"
            )
        if found != ours:
            raise ImportError(
                f"Another package named {name!r} takes the place of ours: {found} comes before {ours}. "
                "Start from another directory, rename or uninstall the other package, or put "
                f"{HOME} first on PYTHONPATH.",
                name=name,
                path=str(found),
            )
        if _MARKS.get(name, b"") not in found.read_bytes():
            raise ImportError(
                f"{found} was overwritten by another package named {name!r}: both were installed into "
                f"{HOME}. Install them into environments of their own.",
                name=name,
                path=str(found),
            )
