"""The model card of an export: what it is, how it scored, whose licence it has, and its config.

A card is published: it names models and files, and not where they lie on somebody's disk.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.workdir.outcome import ROLES
from models.embedded import EMBEDDED
from models.small_files import check_regular

README = "README.md"
# Folders of an absolute path, behind a space, quote, bracket, colon or equals sign.
_FOLDERS = re.compile(r"""(?:(?<=^)|(?<=[\s"'(\[=:,;]))(?:~[^\s/]*|\.\.)?/(?:[^\s/:"']+/)+""")
_WINDOWS = re.compile(r"\b[A-Za-z]:[\\/](?:[^\s\\/:\"']+[\\/])*")
# How the Hugging Face cache calls the folder of a model.
_CACHED = re.compile(r"(?:^|[/\\])models--([^/\\]+?)--([^/\\]+)[/\\]snapshots[/\\][^/\\\s]+[/\\]?")


def model_card(
    run: Mapping[str, Any],
    results: Mapping[str, Any] | None,
    step: int,
    student: Path | None = None,
) -> str:
    """What the model is, how it scored, and the config that made it; Markdown.

    Args:
      run: the run's config.
      student: the directory that the run started from; its own card says what licence it has.
    """
    from huggingface_hub import ModelCardData

    run = without_folders(run)
    method = run.get("method", "unknown")
    base, teacher = ((run.get(role) or {}).get("path") for role in ("student", "teacher"))
    facts: dict[str, Any] = {"base_model": base, "base_model_relation": "finetune"} if base else {}
    facts |= _license(student)
    head = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["distillation", "reasoning"],
        **facts,
    )
    lines = [
        "---",
        head.to_yaml(),
        "---",
        "",
        "# A distilled student",
        "",
        f"Step {step} of a run of `experiments.run` with the method `{method}`"
        + (f", started from `{base}`" if base else "")
        + (f", taught by `{teacher}`" if teacher else "")
        + ".",
        "",
    ]
    if facts["license"] == "other":
        whose = f"`{base}` says none" if base else "it was trained from scratch"
        lines += [f"Licence: unknown, as {whose}. Look it up before you publish this.", ""]
    rows = [(n, results[n]) for n in ROLES if results and results.get(n)]
    if rows:
        lines += [
            "## Results",
            "",
            "Those of the run; `after` was measured at its end.",
            "",
            "| | accuracy | 95 % interval | problems | mean length |",
            "|---|---|---|---|---|",
            *(
                f"| {name} | {float(score['accuracy']):.3f} "
                f"| {float(score['interval'][0]):.3f} to {float(score['interval'][1]):.3f} "
                f"| {score['n']} | {_tokens(score)} |"
                for name, score in rows
            ),
            "",
        ]
    if results and "commit" in results:
        lines += [f"Commit `{results['commit']}`.", ""]
    config = json.dumps(run, indent=2, ensure_ascii=False)
    return "\n".join([*lines, "## Config", "", "```json", config, "```", ""])


def without_folders(value: Any) -> Any:
    """A config whose absolute paths are names: a model's own on the hub, or the last part.

    Paths that begin in the working directory stay as they are.
    """
    if isinstance(value, Mapping):
        return {key: without_folders(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(x) for x in value]
    if not isinstance(value, str):
        return value
    if cached := _CACHED.search(value):
        value = (
            f"{cached[1]}/{cached[2]}" + "/" * (len(value) > cached.end()) + value[cached.end() :]
        )
    if os.path.isabs(value) and not re.search(r"\s", value):
        return Path(value).name or "/"
    return _WINDOWS.sub("", _FOLDERS.sub("", value))


def _license(student: Path | None) -> dict[str, Any]:
    """The licence of the model that a run started from, as its card or the project says."""
    if student is not None and (student / README).exists():
        found = _metadata(student / README)
        if isinstance(found.get("license"), str):
            names = ("license", "license_name", "license_link")
            return {name: found[name] for name in names if isinstance(found.get(name), str)}
    if student is not None and student.resolve().is_relative_to(EMBEDDED):
        return {"license": "apache-2.0"}
    return {"license": "other", "license_name": "unknown"}


def _metadata(file: Path) -> Mapping[str, Any]:
    from huggingface_hub import metadata_load

    check_regular(file)
    try:
        return metadata_load(file) or {}
    except Exception:  # a card may hold anything; what cannot be read says nothing
        return {}


def _tokens(score: Mapping[str, Any]) -> str:
    return f"{float(score['mean_length']):,.1f} tokens" if "mean_length" in score else "unknown"
