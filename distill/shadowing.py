"""Other packages that take the place of ours: `models` and its like are common names."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
# What only our own `__init__.py` says.
_MARKS = {"models": b"load_pretrained"}


def require_ours(*names: str) -> None:
    """Raises where an import of one of these packages would not find the one beside this one.

    Nothing of theirs is run to find out. A folder of that name without an `__init__.py`, as a
    `models/` of downloaded weights beside a script is, is no package and does not count: see
    `_find_behind_folders`.

    Raises:
      ImportError: names the path that is in the way, and says what to do.
    """
    for name in names:
        ours = HOME / name / "__init__.py"
        if not ours.is_file():
            raise ImportError(
                f"This installation has no package {name!r} beside {HOME / 'distill'}. Install it "
                "again from a clone of its repository: pip install -e ."
            )
        spec = importlib.util.find_spec(name)
        if _is_folder(spec):
            spec = _find_behind_folders(name)
        found = Path(spec.origin).resolve() if spec and spec.origin else _folder(spec)
        if found != ours:
            raise ImportError(
                f"Another package named {name!r} takes the place of ours: {found} comes before "
                f"{ours}. Start from another directory, rename or uninstall the other package, or "
                f"put {HOME} first on PYTHONPATH.",
                name=name,
                path=str(found),
            )
        if _MARKS.get(name, b"") not in found.read_bytes():
            raise ImportError(
                f"{found} was overwritten by another package named {name!r}: both were installed "
                f"into {HOME}. Install them into environments of their own.",
                name=name,
                path=str(found),
            )


def _is_folder(spec: ModuleSpec | None) -> bool:
    """Whether the spec is of nothing, or of a folder without an `__init__.py`."""
    return spec is None or spec.origin is None


def _folder(spec: ModuleSpec | None) -> Path | None:
    places = list((spec and spec.submodule_search_locations) or ())
    return Path(places[0]).resolve() if places else None


def _find_behind_folders(name: str) -> ModuleSpec | None:
    """Our package, which comes before folders of its name wherever both are on the path.

    An editable installation may not have its own place on the path: an import then finds the
    folder, and never asks further. At the path's end it is in nobody's way.
    """
    if any(module.startswith(f"{name}.") for module in sys.modules):
        return importlib.util.find_spec(name)  # the folder is in use, as a package
    sys.modules.pop(name, None)
    if str(HOME) not in sys.path:
        sys.path.append(str(HOME))
    importlib.invalidate_caches()
    return importlib.util.find_spec(name)
