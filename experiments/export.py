"""A run's student as a Hugging Face directory:

python -m experiments.export --workdir DIR --out DIR [--checkpoint final|best|STEP] [--dtype bfloat16]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.checkpoints import restore_params
from experiments.pair import lora_of
from experiments.paths import model_directory, tokenizer_directory
from experiments.workdir import CHECKPOINTS, read_config, read_results
from models import Llama3RopeScaling, ModelConfig, load_config, merge, save_pretrained

DTYPES = ("float32", "bfloat16", "float16")


def export(
    workdir: str | os.PathLike[str],
    out: str | os.PathLike[str],
    checkpoint: int | str = "final",
    dtype: str | None = None,
) -> int:
    """Writes the student of a run to `out`, adapters merged, with its tokenizer and a model card.

    Only reads the workdir, and so may be called while the run goes on.

    Args:
      checkpoint: "final" (the latest), "best" by validation accuracy, or a step.
      dtype: what the parameters are cast to; as trained by default.

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
    save_pretrained(params, config, out, tokenizer_from=tokenizer, dtype=dtype)
    card = model_card(run, read_results(workdir), step)
    (out / "README.md").write_text(card, encoding="utf-8")
    return step


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
            "| | accuracy | 95 % interval | problems |",
            "|---|---|---|---|",
            *(
                f"| {name} | {float(score['accuracy']):.3f} "
                f"| {float(score['interval'][0]):.3f} to {float(score['interval'][1]):.3f} "
                f"| {score['n']} |"
                for name, score in rows
            ),
            "",
        ]
    if results and "commit" in results:
        lines += [f"Commit `{results['commit']}`.", ""]
    return "\n".join([*lines, "## Config", "", "```json", json.dumps(run, indent=2), "```", ""])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 when it could not be done."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.export", description="Writes a run's student for transformers."
    )
    parser.add_argument("--workdir", required=True, help="the run's directory")
    parser.add_argument("--out", required=True, help="directory to write; new or empty")
    parser.add_argument("--checkpoint", default="final", help="final (the default), best or a step")
    parser.add_argument("--dtype", choices=DTYPES, help="as trained by default")
    flags = parser.parse_args(arguments)
    if flags.checkpoint not in ("final", "best") and not flags.checkpoint.isdigit():
        parser.error(f"--checkpoint must be final, best or a step, not {flags.checkpoint!r}")
    try:
        step = export(flags.workdir, flags.out, flags.checkpoint, flags.dtype)
    except (OSError, ValueError) as error:
        print(f"Nothing was exported. {error}", file=sys.stderr)
        return 1
    print(f"Wrote step {step} of {flags.workdir} to {flags.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
