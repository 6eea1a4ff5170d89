"""Fields that every method shares, looked at before anything is loaded: known, of the right type, in
range. Sections of a method's own are looked at where they are read (`experiments.config.settings`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from configs.common import shared
from experiments.config.settings import check_type
from experiments.text.final_answer import MODES

# Sections and fields that are not in `configs.common.shared`.
OWN = (
    "method", "sft", "motab", "rollout", "signal", "grpo", "synthesis", "exposure", "exposed", "loss",
    "controller", "windows", "transport", "guidance",
)  # fmt: skip
# The least that a number may be.
LEAST = {
    "steps": 1,
    "batch_size": 1,
    "stop_after_skipped": 1,
    "prompt.max_tokens": 1,
    "evaluation.samples": 1,
    "evaluation.max_tokens": 1,
    "evaluation.batch_size": 1,
    "evaluation.temperature": 0,
    "checkpoint.every": 1,
    "checkpoint.max_to_keep": 1,
    "samples.rows": 0,
    "samples.every": 0,
}
# The values that a field may have.
CHOICES = {"evaluation.answer": ("", *MODES)}


def check_config(config: Any) -> None:
    """Raises where a shared field is unknown, missing, of another type than its default, or too small.

    Args:
      config: a `ConfigDict` or nested dicts.

    Raises:
      ValueError: names the field.
    """
    like = shared()
    config = config.to_dict() if hasattr(config, "to_dict") else config
    for name in config:
        if name not in like and name not in OWN:
            raise ValueError(
                f"{name}: there is no such field; there are {', '.join((*like, *OWN))}."
            )
    for name in (
        "method",
        "seed",
        "steps",
        "batch_size",
        "stop_after_skipped",
        "student",
        "prompt",
    ):
        if name not in config:
            raise ValueError(f"{name} is missing.")
    for name, default in like.items():
        if name in config:
            _check(name, config[name], default)


def _check(name: str, value: Any, default: Any) -> None:
    if isinstance(default, Mapping):
        if not isinstance(value, Mapping):
            raise ValueError(f"{name}={value!r} must be a section with fields of its own.")
        for field in value:
            if field in default:
                _check(f"{name}.{field}", value[field], default[field])
        return
    check_type(name, value, type(default).__name__)
    if value not in CHOICES.get(name, (value,)):
        raise ValueError(f"{name}={value!r} must be one of {', '.join(map(repr, CHOICES[name]))}.")
    least = LEAST.get(name)
    if least is not None and not value >= least:
        raise ValueError(f"{name}={value!r} must be at least {least}.")
