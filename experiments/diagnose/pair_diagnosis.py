"""A pair of models' directories diagnosed on a data set, and what is written of it."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.command.progress import Progress
from experiments.command.sampling_flags import SamplingFlags
from experiments.command.say import say
from experiments.data.sources import load_source
from experiments.diagnose.diagnosis import ROLES, diagnose
from experiments.diagnose.near_future import NearFutureSettings, near_future, near_future_table
from experiments.diagnose.near_future_picture import draw as draw_near_future
from experiments.diagnose.picture import draw
from experiments.diagnose.settings import NEAR_FUTURE, PICTURE, RESULTS, PairDiagnosis
from experiments.machine.environment import environment
from experiments.pair.model import Model
from experiments.pair.tokenizers import compare_tokenizers
from experiments.workdir.workdir import plain, write_atomic
from models import load_config, load_pretrained
from models.embedded import model_directory
from models.text.tokenizer import eos_ids, load_tokenizer


def diagnose_pair(settings: PairDiagnosis, console: Console) -> dict[str, Any]:
    """Diagnoses a pair, shows the means, and writes numbers and pictures.

    Returns:
      what diagnose.json holds.

    Raises:
      FileNotFoundError: there is no such template or data set.
      ValueError: there is no such model, the two have other tokenizers, a file is malformed, or
        texts exceed the positions of a model.
    """
    # Whatever can be wrong with cheap things comes before the weights are read.
    directories = {role: _directory(role, getattr(settings, role)) for role in ROLES}
    examples = list(load_source({"name": settings.data, "size": settings.size}))
    tokenizer, render = settings.tokenizer_and_renderer(directories["student"])
    tokenizers = {"student": tokenizer, "teacher": load_tokenizer(directories["teacher"])}
    shared = compare_tokenizers(tokenizers["teacher"], tokenizer)
    render(examples[0].problem)
    for path in directories.values():
        load_config(path)
    settings.out.mkdir(parents=True, exist_ok=True)
    ends = {i for role, path in directories.items() for i in eos_ids(tokenizers[role], path)}
    eos = tuple(sorted(ends))
    with Progress(len(examples) * settings.n, label="diagnose", console=console) as progress:
        held = {}
        for role, path in directories.items():
            config, params = load_pretrained(path, settings.dtype, stacked=False)
            held[role] = Model(params, config)
        student, teacher = held["student"], held["teacher"]
        results = diagnose(
            student,
            teacher,
            tokenizer,
            examples,
            settings,
            vocab_size=shared,
            eos=eos,
            render=render,
            on_batch=lambda done, _: progress.update(done),
        )
        if settings.window:
            near = near_future(
                student,
                teacher,
                tokenizer,
                examples,
                _near_future_settings(settings),
                eos=eos,
                vocab_size=shared,
                render=render,
            )
            results["near_future"] = near
    said = plain({**dataclasses.asdict(settings), "out": None})
    del said["out"]
    results = {**results, "settings": said, **environment()}
    console.print(overall_table(f"{settings.student} and {settings.teacher}", results))
    if settings.window:
        console.print(near_future_table(results["near_future"]))
    names = write_outcome(settings.out, results)
    wrote = ", ".join(str(settings.out / name) for name in names)
    say(console, f"Wrote {wrote}")
    return results


def _near_future_settings(settings: PairDiagnosis) -> NearFutureSettings:
    shared = {f.name: getattr(settings, f.name) for f in dataclasses.fields(SamplingFlags)}
    return NearFutureSettings(
        window=settings.window, per_text=settings.windows_per_text, n=settings.n, **shared
    )


def overall_table(title: str, results: dict[str, Any]) -> Table:
    """The means over all positions."""
    table = Table("nats per token", "mean", "95 % interval", title=Text(title))

    def row(name: str, curve: dict[str, Any]) -> None:
        point = curve["overall"]
        table.add_row(name, f"{point['mean']:.3f}", f"{point['low']:.3f} to {point['high']:.3f}")

    for text in ROLES:
        for model in ROLES:
            row(f"log p of {model}, {text}'s text", results["log_probs"][f"{text}_text"][model])
    for model in ROLES:
        row(f"KL of {model}, own || other's context", results["kl"][model])
    return table


def _directory(role: str, name: str) -> Path:
    try:
        return model_directory(name)
    except (OSError, ValueError) as error:
        raise ValueError(f"--{role}: {error}") from None


def write_outcome(out: Path, results: dict[str, Any]) -> list[str]:
    """Writes pictures and diagnose.json, each wholly or not at all, numbers last; returns names."""
    figures = {PICTURE: draw(results)}
    if "near_future" in results:
        figures[NEAR_FUTURE] = draw_near_future(results["near_future"])
    for name, figure in figures.items():
        picture = io.BytesIO()
        figure.savefig(picture, format="png")
        write_atomic(out / name, picture.getvalue())
    content = json.dumps(plain(results), indent=2, allow_nan=False) + "\n"
    write_atomic(out / RESULTS, content.encode())
    return [RESULTS, *figures]
