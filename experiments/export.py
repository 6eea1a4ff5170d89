"""A run's student as a Hugging Face directory:

    python -m experiments.export --workdir DIR --out DIR --dtype bfloat16

The directory holds what transformers and inference servers look for: weights in one or several
safetensors files, tokenizer, chat template, generation config, and a model card.
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
from experiments.command.command import command
from experiments.command.flags import Flag
from experiments.pair.pair import lora_of
from experiments.workdir.workdir import CHECKPOINTS, read_config, read_results
from models import Llama3RopeScaling, ModelConfig, load_config, merge, save_pretrained
from models.dtypes import DTYPES
from models.embedded import model_directory, tokenizer_directory
from models.text.tokenizer import eos_ids, load_tokenizer

GENERATION = "generation_config.json"
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "MIB": 2**20, "GIB": 2**30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(|[KMG]B|[MG]iB)", re.IGNORECASE)


def export(
    workdir: str | os.PathLike[str],
    out: str | os.PathLike[str],
    checkpoint: int | str = "final",
    dtype: str | None = None,
    max_shard_bytes: int = 5 * 2**30,
) -> int:
    """Writes the student of a run to `out`, adapters merged, with its tokenizer and a model card.

    The chat template is the run's (`prompt.template`), else the student's own. The generation config
    is the student's own; without one, it has the ends of a text and the run's evaluation sampling.

    Only reads the workdir, and so may be called while the run goes on.

    Args:
      checkpoint: "final" (the latest), "best" by validation accuracy, or a step.
      dtype: what the parameters are cast to; as trained by default.
      max_shard_bytes: weights beyond it are split over several files.

    Returns:
      the step of the checkpoint.

    Raises:
      FileNotFoundError: no such run, checkpoint or student.
      FileExistsError: `out` is not empty.
      ValueError: the workdir's config names no student, or the checkpoint is damaged or not of it.
    """
    out = Path(out).expanduser().resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} is not empty. Choose another --out.")
    workdir = Path(workdir).expanduser().resolve()
    run = read_config(workdir)
    config, tokenizer = student_of(run)
    params, step = restore_params(workdir / CHECKPOINTS, checkpoint)
    params, config = merge(params, config)
    template = _template(run)
    save_pretrained(params, config, out, tokenizer, dtype, max_shard_bytes)
    if template is not None:
        (out / "chat_template.jinja").write_text(template, encoding="utf-8")
    if not (out / GENERATION).exists():
        content = json.dumps(_generation_config(run, tokenizer), indent=2) + "\n"
        (out / GENERATION).write_text(content, encoding="utf-8")
    card = model_card(run, read_results(workdir), step)
    (out / "README.md").write_text(card, encoding="utf-8")
    return step


def _template(run: Mapping[str, Any]) -> str | None:
    """The run's chat template; None where it used the student's own."""
    name = (run.get("prompt") or {}).get("template")
    if not name:
        return None
    file = Path(name).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"The run's prompt.template={name!r} is not there any more.")
    return file.read_text(encoding="utf-8")


def _generation_config(run: Mapping[str, Any], tokenizer_from: Path) -> dict[str, Any]:
    """How the student was asked to write when it was evaluated."""
    tokenizer = load_tokenizer(tokenizer_from)
    values: dict[str, Any] = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": list(eos_ids(tokenizer, tokenizer_from)),
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
        fields = dict(student["init"])
        if fields.get("rope_scaling"):
            fields["rope_scaling"] = Llama3RopeScaling(**fields["rope_scaling"])
        fields["lora"] = lora_of(student)
        return ModelConfig(**fields), tokenizer_directory(student["tokenizer"])
    raise ValueError(
        "The run's config names no student: it has neither student.path nor student.init with "
        "student.tokenizer."
    )


def model_card(run: Mapping[str, Any], results: Mapping[str, Any] | None, step: int) -> str:
    """What the model is, how it scored, and the config that made it; Markdown."""
    student, teacher = (run.get(role) or {} for role in ("student", "teacher"))
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "tags: [distillation, reasoning]",
        "---",
        "",
        "# A distilled student",
        "",
        f"Step {step} of a run of `experiments.run` with the method `{run.get('method', 'unknown')}`"
        + (f", started from `{student['path']}`" if student.get("path") else "")
        + (f", taught by `{teacher['path']}`" if teacher.get("path") else "")
        + ".",
        "",
    ]
    rows = [(n, results[n]) for n in ("before", "after", "teacher") if results and results.get(n)]
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
    return "\n".join([*lines, "## Config", "", "```json", json.dumps(run, indent=2), "```", ""])


def _tokens(score: Mapping[str, Any]) -> str:
    return f"{float(score['mean_length']):,.1f} tokens" if "mean_length" in score else "unknown"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What to export, and as what."""

    workdir: Annotated[Path, Flag("the run's directory", "DIR")]
    out: Annotated[Path, Flag("directory to write; new or empty", "DIR")]
    checkpoint: Annotated[str, Flag("final, best or a step")] = "final"
    dtype: Annotated[str | None, Flag("as trained by default", choices=DTYPES)] = None
    max_shard_size: Annotated[str, Flag("of a weights file, such as 500MB")] = "5GiB"

    def __post_init__(self) -> None:
        if self.checkpoint not in ("final", "best") and not self.checkpoint.isdigit():
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
