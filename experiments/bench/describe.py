"""What the numbers depend on: machine, versions, commit."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.bench.processes import Result
from experiments.machine.environment import environment


def describe(results: Sequence[Result]) -> dict[str, Any]:
    """Hardware, versions of everything measured, and our commit."""
    versions = {"python": platform.python_version()}
    for result in results:
        mine = result.who == "ours"
        for name, version in result.versions.items():
            # A peer's environment may hold another version of what we use, too.
            versions[name if mine else f"{name} ({result.who})"] = version
    device = next((r.facts["device"] for r in results if "device" in r.facts), "unknown")
    ours = environment()
    return {
        "commit": ours["commit"],
        "dirty": ours["dirty"],
        "cpu": _processor(),
        "cores": _cores(),
        "device": device,
        "versions": versions,
    }


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
