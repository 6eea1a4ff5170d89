"""A run's student as a Hugging Face directory:

    python -m experiments.export --workdir DIR --out DIR --dtype bfloat16

The directory holds what transformers and inference servers look for: weights in one or several
safetensors files, tokenizer, chat template, generation config, and a model card. It appears when
all of it is written.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from experiments.checkpoints.checkpoints import restore_params
from experiments.checkpoints.files import NAMED
from experiments.command.command import command
from experiments.command.flags import Flag
from experiments.config.reading import read_section
from experiments.pair.pair import lora_of
from experiments.report.model_card import README, model_card
from experiments.workdir.workdir import CHECKPOINTS, read_results, read_run_config
from models import ModelConfig, load_config, merge, save_pretrained
from models.dtypes import DTYPES
from models.embedded import model_directory, tokenizer_directory
from models.paths import local_path
from models.small_files import read_object
from models.text.tokenizer import eos_ids, load_tokenizer, read_template

GENERATION, TOKENIZER_CONFIG = "generation_config.json", "tokenizer_config.json"
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "MIB": 2**20, "GIB": 2**30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(|[KMG]B|[MG]iB)", re.IGNORECASE)


def export(
    workdir: str | os.PathLike[str],
    out: str | os.PathLike[str],
    checkpoint: int | str = "final",
    dtype: Any = None,
    max_shard_bytes: int = 5 * 2**30,
) -> int:
    """Writes the student of a run to `out`, adapters merged, with its tokenizer and a model card.

    The chat template is the run's (`prompt.template`), else the student's own. The generation
    config is the student's own, or has the run's evaluation sampling. Its ends of a text are those
    that the run trained and stopped at.

    Only reads the workdir, and so may be called while the run goes on. `out` appears when it is
    complete, and not at all otherwise.

    Args:
      checkpoint: "final" (the latest), "best" by validation accuracy, or a step.
      dtype: what the parameters are cast to, as "bfloat16" or `jnp.bfloat16`; by default they
        stay as trained.
      max_shard_bytes: weights beyond it are split over several files.

    Returns:
      the step of the checkpoint.

    Raises:
      FileNotFoundError: no such run, checkpoint, student or template.
      FileExistsError: `out` is not empty.
      ValueError: the workdir's config names no student, or the checkpoint is damaged or not of it.
    """
    out = local_path(out, "out").expanduser().resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} is not empty. Choose another --out.")
    workdir = local_path(workdir, "workdir").expanduser().resolve()
    run = read_run_config(workdir)
    config, source = student_of(run)
    texts = {**_template(run, source), GENERATION: _json(_generation_config(run, source))}
    params, step = restore_params(workdir / CHECKPOINTS, checkpoint)
    params, config = merge(params, config)
    began = source if (run.get("student") or {}).get("path") else None
    texts[README] = model_card(run, read_results(workdir), step, began)
    save_pretrained(params, config, out, source, dtype, max_shard_bytes, texts)
    return step


def _template(run: Mapping[str, Any], source: Path) -> dict[str, str | None]:
    """The files that hold the run's chat template; none where it used the student's own."""
    name = (run.get("prompt") or {}).get("template")
    if not name:
        return {}
    file = local_path(name, "prompt.template")
    if not file.exists():
        raise FileNotFoundError(f"The run's prompt.template={name!r} is not there any more.")
    # Readers differ in which file they ask first: the student's own template is in none of them.
    texts: dict[str, str | None] = {"chat_template.jinja": read_template(file)}
    if (source / "chat_template.json").exists():
        texts["chat_template.json"] = None
    if (source / TOKENIZER_CONFIG).exists():
        values = read_object(source / TOKENIZER_CONFIG)
        if values.pop("chat_template", None) is not None:
            texts[TOKENIZER_CONFIG] = _json(values)
    return texts


def _generation_config(run: Mapping[str, Any], source: Path) -> dict[str, Any]:
    """The student's own, or how it was asked to write when it was evaluated; with all ends."""
    tokenizer = load_tokenizer(source)
    ends = list(eos_ids(tokenizer, source))
    ends += [i for i in _ends_of_teacher(run) if i not in ends and i < len(tokenizer)]
    if (source / GENERATION).exists():
        values = read_object(source / GENERATION)
        named = values.get("eos_token_id")
        if set(named if isinstance(named, list) else [named]) != set(ends):
            values["eos_token_id"] = ends
        return values
    values = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": ends,
        "pad_token_id": tokenizer.pad_token_id,
    }
    evaluation = run.get("evaluation") or {}
    if evaluation.get("temperature"):
        values["do_sample"] = True
        values |= {
            name: evaluation[name] for name in ("temperature", "top_p") if name in evaluation
        }
    elif "temperature" in evaluation:
        values["do_sample"] = False
    return {name: value for name, value in values.items() if value is not None}


def _ends_of_teacher(run: Mapping[str, Any]) -> tuple[int, ...]:
    """What else the student has learnt to end its texts with; () where the teacher has gone."""
    name = (run.get("teacher") or {}).get("path")
    try:
        directory = model_directory(name) if name else None
    except FileNotFoundError:
        return ()
    return eos_ids(load_tokenizer(directory), directory) if directory else ()


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def bytes_of(size: str) -> int:
    """Bytes of `5GB`, `200MB`, `1GiB` or a plain number.

    Raises:
      ValueError: it is none of them.
    """
    match = _SIZE.fullmatch(size.strip())
    if not match or float(match[1]) <= 0:
        raise ValueError(f"{size!r} is no size such as 5GB or 500MB.")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def student_of(run: Mapping[str, Any]) -> tuple[ModelConfig, Path]:
    """The student's architecture, adapters included, and the directory its tokenizer is in.

    Args:
      run: the config of a run. `student.path` is the model it started from; a student trained from
        scratch has its architecture in `student.init` and `student.tokenizer` instead.

    Raises:
      ValueError: the config has neither.
    """
    student = run.get("student") or {}
    if student.get("path"):
        directory = model_directory(student["path"])
        return load_config(directory).replace(lora=lora_of(student)), directory
    if student.get("init") and student.get("tokenizer"):
        config = read_section(ModelConfig, student["init"], "student.init")
        config = config.replace(lora=lora_of(student))
        return config, tokenizer_directory(student["tokenizer"])
    raise ValueError(
        "The run's config names no student: it has neither student.path nor student.init with "
        "student.tokenizer."
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What to export, and as what."""

    workdir: Annotated[Path, Flag("the run's directory", "DIR")]
    out: Annotated[Path, Flag("directory to write; new or empty", "DIR")]
    checkpoint: Annotated[str, Flag("final, best or a step")] = "final"
    dtype: Annotated[str | None, Flag("as trained by default", choices=DTYPES)] = None
    max_shard_size: Annotated[str, Flag("of a weights file, such as 500MB")] = "5GiB"

    def __post_init__(self) -> None:
        if self.checkpoint not in NAMED and not self.checkpoint.isdigit():
            raise ValueError(f"--checkpoint={self.checkpoint} must be final, best or a step.")
        bytes_of(self.max_shard_size)


def run(settings: Settings) -> None:
    """Exports the student."""
    shard = bytes_of(settings.max_shard_size)
    step = export(settings.workdir, settings.out, settings.checkpoint, settings.dtype, shard)
    print(f"Wrote step {step} of {settings.workdir} to {settings.out}")


main = command("export", Settings, run, __doc__)

if __name__ == "__main__":
    sys.exit(main())
