"""What a result depends on besides its config: commit, versions, devices."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

PACKAGES = {
    "jax": "jax",
    "jaxlib": "jaxlib",
    "flax": "flax",
    "optax": "optax",
    "orbax": "orbax-checkpoint",
    "transformers": "transformers",
    "numpy": "numpy",
}


def environment() -> dict[str, Any]:
    """What a result depends on besides the config: commit, versions and devices.

    `commit` is "unknown" (and `dirty` None) where the code does not run from a git checkout.
    """
    devices = jax.devices()
    return {
        **_commit(Path(__file__).resolve().parents[2]),
        "versions": {"python": platform.python_version()}
        | {name: _version(package) for name, package in PACKAGES.items()},
        "device": devices[0].device_kind,
        "device_count": len(devices),
    }


def _commit(root: Path) -> dict[str, Any]:
    """The commit checked out at `root`, and whether tracked files differ from it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=20
        ).stdout

    try:
        # An installed copy may lie inside another project's checkout: that commit is not ours.
        if Path(git("rev-parse", "--show-toplevel").strip()).resolve() != root:
            return {"commit": "unknown", "dirty": None}
        return {
            "commit": git("rev-parse", "HEAD").strip(),
            "dirty": bool(git("status", "--porcelain", "--untracked-files=no").strip()),
        }
    except (OSError, subprocess.SubprocessError):
        return {"commit": "unknown", "dirty": None}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
