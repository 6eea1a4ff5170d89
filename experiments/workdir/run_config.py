"""The config of a run in its directory: read, compared, and what a resumed run may change."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

from experiments.workdir.files import plain, read_object
from models.paths import local_path

CONFIG = "config.json"

# Sections, and fields at any depth, that change speed, memory, or what is shown and kept, and not
# what is learnt.
_SECTIONS = ("mesh.", "student.rules.", "teacher.rules.", "tracking.", "profile.", "samples.")
_FIELDS = {
    "student.remat",
    "student.attention",
    "teacher.attention",
    "optimizer.micro_batches",
    "synthesis.slots",
    "evaluation.batch_size",
    "checkpoint.every",
    "checkpoint.max_to_keep",
    "checkpoint.keep_best",
    "stop_after_skipped",
}
_ANYWHERE = "chunk"  # tokens of a turn of a rollout


def read_run_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The config of the run in a workdir.

    Raises:
      FileNotFoundError: there is no run.
      ValueError: its config.json is not a JSON object, or a section of it is none.
    """
    file = local_path(path, "workdir") / CONFIG
    try:
        config = read_object(file)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{path} is not a run's directory: it has no {CONFIG}.") from None
    for name in ("student", "teacher", "prompt", "data", "evaluation"):
        if not isinstance(config.get(name, {}), dict):
            raise ValueError(f"{file}: {name}={config[name]!r} must be an object.")
    return config


def config_dict(config: Any) -> dict[str, Any]:
    """A config as nested dicts of JSON values, tuples as lists.

    Raises:
      TypeError: a field is not JSON.
    """
    fields = config.to_dict() if hasattr(config, "to_dict") else config
    try:
        return json.loads(json.dumps(plain(fields)))
    except TypeError as error:
        raise TypeError(f"A config must hold JSON values only: {error}") from error


def config_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line per field that differs, dotted, with both values."""
    before, after = flatten(old), flatten(new)
    return [
        f"{name}: {before.get(name, 'absent')} in the workdir, {after.get(name, 'absent')} now"
        for name in _names(before, after)
        if before.get(name) != after.get(name)
    ]


def changes(
    old: Mapping[str, Any], new: Mapping[str, Any], done: int
) -> tuple[list[str], list[str]]:
    """What a resumed run changes, and which of its differences are refused; a line each.

    It may change what leaves the learnt weights as they are, and have more `steps` where the
    learning rate of the steps to come does not depend on them.

    Args:
      done: the step of the latest checkpoint.
    """
    before, after = flatten(old), flatten(new)
    changed, refused = [], []
    for name in _names(before, after):
        a, b = before.get(name, "absent"), after.get(name, "absent")
        if a == b:
            continue
        if may_change(name):
            changed.append(f"{name}: {a} before, {b} now")
        elif name == "steps" and not (why := _fixed_steps(old, new, done)):
            changed.append(f"steps: {a} before, {b} now")
        else:
            more = f" ({why})" if name == "steps" else ""
            refused.append(f"{name}: {a} in the workdir, {b} now{more}")
    return changed, refused


def may_change(name: str) -> bool:
    """Whether a field, by its dotted name, leaves what is learnt as it is."""
    return (
        name.startswith(_SECTIONS)
        or name in _FIELDS
        or name.rpartition(".")[2] == _ANYWHERE
        or f"{name}." in _SECTIONS  # an empty section
    )


def _fixed_steps(old: Mapping[str, Any], new: Mapping[str, Any], done: int) -> str:
    """Why `steps` may not change; empty where it may."""
    before, after = old.get("steps"), new.get("steps")
    if not isinstance(before, int) or not isinstance(after, int) or after < before:
        return "there may be more steps, not fewer"
    optimizer = new.get("optimizer") or {}
    if optimizer.get("schedule") != "constant":
        return 'more steps are possible where optimizer.schedule is "constant"'
    if new.get("method") == "atesd":
        return "ATESD's controller knows how many steps there are"
    warmups = {_warmup(optimizer, steps) for steps in (before, after)}
    if len(warmups) > 1 and done < max(warmups):
        return (
            f"the warm-up would end at step {max(warmups)}, and the run is at step {done}: let it "
            "go on beyond that first, or start anew"
        )
    return ""


def _warmup(optimizer: Mapping[str, Any], steps: int) -> int:
    """As `distill.train.optimizer.make_schedule` has it."""
    fraction = optimizer.get("warmup_fraction") or 0
    return max(1, round(fraction * steps)) if fraction else 0


def identity(config: Mapping[str, Any]) -> str:
    """A digest of all fields but those that a resumed run may change."""
    fields = {k: v for k, v in flatten(config).items() if not may_change(k) and k != "steps"}
    return hashlib.blake2b(json.dumps(fields, sort_keys=True).encode(), digest_size=12).hexdigest()


def flatten(fields: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted name -> value as JSON; 1 and 1.0 are the same value, 1 and true are not."""
    flat: dict[str, str] = {}
    for key, value in fields.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{name}.")
        else:
            whole = isinstance(value, float) and value.is_integer()
            flat[name] = json.dumps(int(value) if whole else value)
    return flat


def _names(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    return [*before, *(name for name in after if name not in before)]
