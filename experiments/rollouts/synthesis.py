"""Trajectories written once to a JSONL file that keeps everything training needs.

The first line says what wrote the file: models, tokenizer, prompt and the recipe's settings. Every
other line is one trajectory, with a checksum: what a kill tore or a disk changed is written anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import logging
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from experiments.command.progress import Progress
from experiments.config.tree import WritingConfig
from experiments.data.batches import PromptBatch, prompt_batches
from experiments.data.sources import load_source
from experiments.machine.interruption import check
from experiments.machine.processes import first_does, is_first
from experiments.pair.pair import Pair, start_student
from experiments.rollouts.recipe import Recipe
from experiments.workdir.workdir import write_atomic
from models.embedded import model_directory
from models.parameters import Params

log = logging.getLogger(__name__)

# A run's own file, where its config names none.
SYNTHESIS = "synthesis.jsonl"


def synthesise(config: WritingConfig, pair: Pair, recipe: Recipe, path: Path) -> None:
    """Writes `synthesis.trajectories` trajectories of the student's initial weights.

    Lines are written as trajectories end, `synthesis.slots` of which are written at the same time;
    their order means nothing. Goes on where an earlier call was interrupted; what is complete is
    left as it is.

    Raises:
      ValueError: the file was written with other models or settings.
      Interrupted: a signal asked the process to end.
    """
    copies = config.synthesis.trajectories_per_prompt
    # A round's prompts; one, where the copies of several would not make up a batch.
    prompts = 1 if config.batch_size % copies else config.batch_size // copies
    total = config.synthesis.trajectories // (prompts * copies)
    if total < 1:
        raise ValueError(
            f"synthesis.trajectories={config.synthesis.trajectories} is less than one round of "
            f"{prompts * copies}."
        )
    header = header_of(config)
    first_does(lambda: _prepare(path, header))
    there = _read_samples(path)
    rows = total * prompts * copies
    if len(there) >= rows:
        return
    recipe.start_grading()
    batches = prompt_batches(
        load_source(config.data.train.spec, recipe.needs_answer),
        pair.render,
        batch_size=prompts,
        max_prompt_tokens=config.prompt.max_tokens,
        seed=config.seed,
    )
    params = start_student(pair, config.seed, stacked=False)
    done = len(there)
    rounds = enumerate(itertools.islice(batches, total))
    target = path if is_first() else os.devnull
    with Progress(rows, start=done, label="synthesise") as progress, open(target, "ab") as file:
        for records in _through_slots(recipe, params, rounds, copies, there):
            if is_first():
                file.write(b"".join(map(sealed, records)))
                file.flush()
                os.fsync(file.fileno())
            done += len(records)
            progress.update(done)
            if done < rows:
                check(f"{done} of {rows} trajectories are in {path}.")
    first_does(lambda: None)  # the file is whole for all


Rounds = Iterable[tuple[int, PromptBatch]]
Lines = Iterator[list[dict[str, Any]]]


def _through_slots(
    recipe: Recipe, params: Params, rounds: Rounds, copies: int, there: set[int]
) -> Lines:
    """Lines of trajectories that are not there yet, as they end."""
    requests = (
        request
        for round_, batch in rounds
        for request in recipe.requests(batch, copies, round_)
        if request.sample_id not in there
    )
    both = params, recipe.pair.teacher_params
    for (trajectories, record), done in recipe.engine().run(both, requests):
        lines = recipe.lines(trajectories, record, [request.payload for request in done])
        yield [
            {"sample_id": request.sample_id, **line}
            for request, line in zip(done, lines, strict=True)
        ]


def header_of(config: WritingConfig) -> dict[str, Any]:
    """What a file written by `config` begins with."""
    directories = {"student": model_directory(config.student.path)}
    if config.teacher is not None:
        directories["teacher"] = model_directory(config.teacher.path)
    return {
        "kind": "header",
        **{role: fingerprint(directory) for role, directory in directories.items()},
        "prompt": dataclasses.asdict(config.prompt),
        "thinking": config.student.thinking,
        config.section: config.writing(),
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


def _read_samples(path: Path) -> set[int]:
    """The samples that a file holds."""
    with path.open("rb") as file:
        return {read_line(line)["sample_id"] for line in itertools.islice(file, 1, None)}


def _prepare(path: Path, header: dict[str, Any]) -> None:
    """Makes the file ready to be added to."""
    if not path.exists() or path.stat().st_size == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(header) + "\n")
        return
    first, *lines = path.read_bytes().splitlines(keepends=True)
    check_header(first, header, path, tuple(header))
    there: dict[int, bytes] = {}
    for number, line in enumerate(lines, 2):
        try:
            there[read_line(line)["sample_id"]] = line
        except ValueError as error:
            log.warning("%s, line %d: %s; writing it anew.", path, number, error)
    if len(there) < len(lines):
        write_atomic(path, b"".join([first, *there.values()]))


def sealed(record: dict[str, Any]) -> bytes:
    """A trajectory as a line that says if it was changed: the last field is a checksum."""
    text = json.dumps(record)
    return f'{text[:-1]}, "crc": {zlib.crc32(text.encode())}}}\n'.encode()


def read_line(line: bytes) -> dict[str, Any]:
    """A trajectory.

    Raises:
      ValueError: the line is torn, or not what was written.
    """
    text, sealed, crc = line.rpartition(b', "crc": ')
    if not sealed:
        raise ValueError("it is torn, or has no crc")
    if crc != b"%d}\n" % zlib.crc32(text + b"}"):
        raise ValueError("it is torn or was changed")
    record = json.loads(line)
    if not isinstance(record, dict) or not isinstance(record.get("sample_id"), int):
        raise ValueError("it is no trajectory")
    return record


def check_header(line: bytes, header: dict[str, Any], path: Path, names: tuple[str, ...]) -> None:
    """Refuses a file whose header differs in one of `names`.

    Raises:
      ValueError: it does, or it is no such file, or its tokens are another tokenizer's.
    """
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or found.get("kind") != "header":
        raise ValueError(f"{path}, line 1: not a file of synthesised trajectories.")
    for name in names:
        if found.get(name) != header[name]:
            raise ValueError(
                f"{path} was written with another {name}: {found.get(name)}, now {header[name]}. "
                "Synthesise to a new file, or set the config to what the file says."
            )
    student = found.get("student")
    tokenizer = student.get("tokenizer") if isinstance(student, dict) else None
    if tokenizer != header["student"]["tokenizer"]:
        raise ValueError(
            f"{path} was written with another tokenizer than the student's, so its token ids mean "
            "other texts. Synthesise to a new file."
        )
