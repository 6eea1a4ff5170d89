"""A model's directory evaluated on data sets by name, and what is written of it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.command.progress import Progress
from experiments.command.say import say
from experiments.data.catalogue import CATALOGUE
from experiments.data.sources import load_source
from experiments.evaluate.evaluation import evaluate
from experiments.evaluate.part import Part
from experiments.evaluate.picture import write_picture
from experiments.evaluate.settings import RESULTS, SAMPLES, ModelEvaluation
from experiments.evaluate.summary import results_table
from experiments.grading import POOL
from experiments.machine.environment import environment
from experiments.machine.interruption import check
from experiments.pair.model import Model
from experiments.rollouts.synthesis import fingerprint
from experiments.tasks.example import Example
from experiments.workdir.workdir import plain, write_atomic
from models import load_pretrained
from models.embedded import model_directory
from models.text.tokenizer import eos_ids


def evaluate_model(settings: ModelEvaluation, console: Console) -> dict[str, Any]:
    """Evaluates a model, shows its scores and, with `out`, writes them.

    Returns:
      the summary that `evaluate` gives.

    Raises:
      FileNotFoundError: there is no such model, template or data set.
      GradingError: answers cannot be compared on this machine.
      ValueError: a file is malformed, or texts exceed the model's positions.
    """
    # Whatever can be wrong with cheap things comes before the weights are read.
    directory, out = model_directory(settings.model), settings.out
    examples = [example for name in settings.data for example in _load(name, settings)]
    tokenizer, render = settings.tokenizer_and_renderer(directory)
    first = render(examples[0].problem)
    data = ", ".join(settings.data)
    title = f"{settings.model} on {data}"
    POOL.start()  # a grader that cannot work is noticed before anything is sampled
    said = plain({**dataclasses.asdict(settings), "data": data, "out": None})
    del said["out"]
    part = None
    with Progress(len(examples) * settings.n, label="evaluate", console=console) as progress:
        config, params = load_pretrained(directory, settings.dtype, stacked=False)
        if out:
            part = Part(out / f"{SAMPLES}.part", _made_of(said, directory, examples, first))
        summary, records = evaluate(
            Model(params, config),
            tokenizer,
            examples,
            settings,
            eos=eos_ids(tokenizer, directory),
            render=render,
            on_batch=functools.partial(_on_batch, progress, out),
            part=part,
        )
    console.print(results_table(title, summary))
    if out:
        write_outcome(out, {**summary, "settings": said, **environment()}, records)
        picture = write_picture(out, title, summary, records)
        if part is not None:
            part.done()
        wrote = f"Wrote {RESULTS}, {SAMPLES} and {picture.name} to {out}"
        say(console, wrote)
    return summary


def _on_batch(progress: Progress, out: Path | None, done: int, total: int) -> None:
    progress.update(done)
    if done < total:
        kept = f"are in {out}" if out else "are lost, for want of --out"
        check(f"{done} of {total} graded samples {kept}.")


def _load(name: str, settings: ModelEvaluation) -> list[Example]:
    """The examples of NAME or NAME=PATH."""
    known, equals, path = name.partition("=")
    spec = {"name": known, "path": path} if equals and known in CATALOGUE else {"name": name}
    fields = dict(item.partition("=")[::2] for item in settings.fields)
    return list(load_source({**spec, "size": settings.size, "fields": fields}, needs_answer=True))


def _made_of(
    settings: Mapping[str, Any],
    directory: Path,
    examples: Sequence[Example],
    first_prompt: list[int],
) -> dict[str, Any]:
    """What samples depend on: settings that do not just change speed, model, problems, template."""
    problems = hashlib.blake2b(repr((first_prompt, examples)).encode(), digest_size=12)
    return {
        **{name: value for name, value in settings.items() if name != "batch_size"},
        "weights": fingerprint(directory),
        "problems": problems.hexdigest(),
    }


def write_outcome(
    out: Path, results: Mapping[str, Any], records: Sequence[Mapping[str, Any]]
) -> None:
    """Writes results.json and samples.jsonl, each wholly or not at all; samples first."""
    out.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(plain(record)) + "\n" for record in records)
    write_atomic(out / SAMPLES, lines.encode())
    write_atomic(out / RESULTS, (json.dumps(plain(results), indent=2) + "\n").encode())
