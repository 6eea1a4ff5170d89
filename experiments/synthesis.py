"""Trajectories written once to a JSONL file that keeps everything training needs.

The first line says what wrote the file: models, tokenizer, prompt and the recipe's settings. Every
other line is one trajectory.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import jax

from experiments.data.batches import prompt_batches
from experiments.data.sources import load_source
from experiments.pair import Pair, start_student
from experiments.paths import model_directory
from experiments.progress import Progress
from experiments.recipe import Recipe

log = logging.getLogger(__name__)

# A run's own file, where its config names none.
SYNTHESIS = "synthesis.jsonl"


def synthesise(config: Any, pair: Pair, recipe: Recipe, path: Path) -> None:
    """Writes `synthesis.trajectories` trajectories of the student's initial weights.

    Goes on where an earlier call was interrupted; what is complete is left as it is.

    Raises:
      ValueError: the file was written with other models or settings.
    """
    params: Any = None
    copies = config.synthesis.trajectories_per_prompt
    per_batch = config.batch_size
    total = config.synthesis.trajectories // per_batch
    if total < 1:
        raise ValueError(
            f"synthesis.trajectories={config.synthesis.trajectories} is less than one batch of "
            f"batch_size={per_batch}."
        )
    header = header_of(config, recipe)
    done = _prepare(path, header, per_batch)
    batches = prompt_batches(
        load_source(config.data.train),
        pair.render,
        batch_size=per_batch // copies,
        max_prompt_tokens=config.prompt.max_tokens,
        seed=config.seed,
    )
    if done < total:
        params = start_student(pair, config)
    with Progress(total * per_batch, start=done * per_batch, label="synthesise") as progress:
        for index in range(total):
            batch = next(batches)
            if index < done:
                continue
            trajectories, record, _ = jax.device_get(recipe(params, batch, copies, index))
            examples = [example for example in batch.examples for _ in range(copies)]
            ids = [int(i) * copies + copy for i in batch.sample_ids_B for copy in range(copies)]
            records = [
                {"sample_id": i, **line}
                for i, line in zip(ids, recipe.lines(trajectories, record, examples), strict=True)
            ]
            with path.open("ab") as file:
                file.write(b"".join(json.dumps(r).encode() + b"\n" for r in records))
                file.flush()
                os.fsync(file.fileno())
            progress.update((index + 1) * per_batch)


def header_of(config: Any, recipe: Recipe) -> dict[str, Any]:
    """What a file written by `config` and `recipe` begins with."""
    fields = config[recipe.section].to_dict()
    fields.pop("chunk", None)  # changes speed alone
    models = ("student", "teacher") if "teacher" in config else ("student",)
    return {
        "kind": "header",
        **{name: fingerprint(model_directory(config[name].path)) for name in models},
        "prompt": config.prompt.to_dict(),
        recipe.section: fields,
        "seed": config.seed,
        "trajectories_per_prompt": config.synthesis.trajectories_per_prompt,
    }


def fingerprint(directory: Path) -> dict[str, str]:
    """Short hashes of what makes a model: `weights` and `tokenizer`.

    Of a weights file it takes the size, the head and the tail: enough to tell two models apart
    without reading tens of gigabytes.
    """

    def digest(paths: list[Path]) -> str:
        sums = hashlib.blake2b(digest_size=12)
        for path in sorted(paths):
            size, piece = path.stat().st_size, 2**20
            with path.open("rb") as file:
                sums.update(f"{path.name} {size}".encode() + file.read(piece))
                file.seek(max(0, size - piece))
                sums.update(file.read(piece))
        return sums.hexdigest()

    return {
        "weights": digest(list(directory.glob("*.safetensors"))),
        "tokenizer": digest(list(directory.glob("tokenizer.json"))),
    }


def _prepare(path: Path, header: dict[str, Any], per_batch: int) -> int:
    """Makes the file ready to be added to; returns how many whole batches it holds."""
    if not path.exists() or path.stat().st_size == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(header) + "\n")
        return 0
    lines = path.read_bytes().splitlines(keepends=True)
    check_header(lines[0], header, path, tuple(header))
    whole = [line for line in lines[1:] if line.endswith(b"\n")]
    done = len(whole) // per_batch
    kept = b"".join([lines[0], *whole[: done * per_batch]])
    if kept != b"".join(lines):
        log.warning("%s: the last batch was torn by an interruption; writing it anew.", path)
        os.truncate(path, len(kept))
    return done


def check_header(line: bytes, header: dict[str, Any], path: Path, names: tuple[str, ...]) -> None:
    """Refuses a file whose header differs in one of `names`.

    Raises:
      ValueError: it does, or it is no such file.
    """
    try:
        found = json.loads(line)
    except ValueError:
        found = {}
    if found.get("kind") != "header":
        raise ValueError(f"{path}, line 1: not a file of synthesised trajectories.")
    for name in names:
        if found.get(name) != header[name]:
            raise ValueError(
                f"{path} was written with another {name}: {found.get(name)}, now {header[name]}. "
                "Synthesise to a new file, or set the config to what the file says."
            )
