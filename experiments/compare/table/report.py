"""table.json, table.md and the pictures of a study."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.compare.arms import Plan
from experiments.compare.table.markdown import make_markdown
from experiments.compare.table.pictures import write_pictures
from experiments.compare.table.study import make_table
from experiments.machine.environment import environment
from experiments.workdir.workdir import RESULTS, plain, read_results, write_atomic


def write_report(
    plan: Plan, workdir: Path, missing: Mapping[str, str], command: str, seconds: float
) -> None:
    """Writes what the finished runs of a study say into its directory.

    Args:
      missing: runs that were asked for and are not there, and why.
      command: how the study was called.
      seconds: how long this call took.
    """
    study = plan.study
    found = (read_results(path.parent) for path in sorted(workdir.glob(f"*/*/{RESULTS}")))
    results = [one for one in found if one is not None]
    table = {
        "study": {
            "title": study.title,
            "labels": {name: study.label(name) for name in study.arms},
            "references": list(study.references),
            "sweep": list(study.sweep),
            "monitor": list(study.monitor),
            "revision_text": study.revision_text,
            **plan.rules(),
        },
        "command": command,
        "environment": _environment(results, seconds),
        **make_table(plan, workdir),
        "missing": dict(missing),
    }
    pictures = write_pictures(table, workdir)
    write_atomic(workdir / "table.json", (json.dumps(plain(table), indent=2) + "\n").encode())
    write_atomic(workdir / "table.md", make_markdown(table, pictures).encode())


def _environment(results: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Commits and versions of the runs, of this process where there is none; hardware and times."""
    here = environment()
    seen = [r for r in results if "commit" in r] or [here]
    commits = {r["commit"] + (" with changes" if r.get("dirty") else "") for r in seen}
    devices = {f"{r['device_count']} x {r['device']}" for r in seen}
    versions = {
        name: " or ".join(sorted({r["versions"].get(name, "absent") for r in seen}))
        for name in here["versions"]
    }
    return {
        "commits": sorted(commits),
        "hardware": f"{' or '.join(sorted(devices))}; {_processor()}, {os.cpu_count()} cores",
        "versions": versions,
        "run_seconds": sum(float(r.get("wall_seconds", 0.0)) for r in results),
        "call_seconds": seconds,
    }


def _processor() -> str:
    """The processor's name where the system tells, its architecture elsewhere."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
