"""Teacher scores of a file of trajectories, computed once and kept beside it.

`FILE.teacher/00000.safetensors` and so on hold the scores of a batch of trajectories each, one
after the other, in the order in which `TrajectoryBatches` numbers them. Every one says what it was
made of, and has a checksum: one that a disk changed, or that was renamed, is computed anew.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from distill.losses.teacher_scores import check_cacheable, score_trajectories
from distill.train.packing import Segment, pack_segments
from distill.train.sharding import batch_sharding
from distill.trajectories import TeacherScores
from experiments.command.progress import Progress
from experiments.config.tree import WritingConfig
from experiments.machine.interruption import check
from experiments.machine.processes import fetch, first_does, place_rows
from experiments.pair.pair import Pair
from experiments.rollouts.recipe import Recipe
from experiments.rollouts.synthesis import fingerprint
from experiments.workdir.workdir import write_atomic
from models.embedded import model_directory

log = logging.getLogger(__name__)

_FIELDS = ("sampled_BxT", "ids_BxTxK", "log_probs_BxTxK", "tail_BxT")
# What a loss on sampled tokens reads: one number for each.
_SAMPLED = _FIELDS[:1]


class KeptScores:
    """Random access to the teacher's scores of every trajectory.

    What is missing is computed when this is made, a batch at a time; an interrupted call goes on.

    Args:
      lengths: tokens of every trajectory.
      segment: the trajectory of an index.
      width: tokens of the longest one, or more.

    Raises:
      ValueError: the recipe's loss needs what scores do not hold; or the scores there are were made
        of another teacher, tokenizer, prompt or file.
    """

    def __init__(
        self,
        config: WritingConfig,
        recipe: Recipe,
        path: Path,
        lengths: Sequence[int],
        segment: Callable[[int], Segment],
        width: int,
    ):
        if recipe.signal is None:
            raise ValueError(
                "synthesis.cache_teacher=True, but the loss asks the teacher nothing that could be "
                "kept. Set it to False."
            )
        check_cacheable(recipe.signal)
        self._fields = _SAMPLED if recipe.signal.support == "sampled" else _FIELDS
        self._directory = path.with_name(path.name + ".teacher")
        self._per_file = config.batch_size
        self._lengths = lengths
        made_of = _made_of(config, recipe, path)
        first_does(lambda: self._directory.mkdir(exist_ok=True))
        missing = [
            number
            for number in range(-(-len(lengths) // self._per_file))
            if not _is_there(self._file(number), {**made_of, "number": number}, self._fields)
        ]
        if missing:
            self._compute(recipe, segment, width, missing, made_of)

    def __getitem__(self, index: int) -> TeacherScores:
        number, place = divmod(index, self._per_file)
        first = number * self._per_file
        start = sum(self._lengths[first : first + place])
        stop = start + self._lengths[index]
        with safe_open(self._file(number), framework="numpy") as file:
            found = {x: file.get_slice(x)[start:stop] for x in self._fields}
        nothing = np.zeros((self._lengths[index], 0), np.float32)
        empty = dict(
            zip(_FIELDS, (None, nothing.astype(np.int32), nothing, nothing.sum(1)), strict=True)
        )
        return TeacherScores(**{**empty, **found})

    def _file(self, number: int) -> Path:
        return self._directory / f"{number:05}.safetensors"

    def _compute(
        self,
        recipe: Recipe,
        segment: Callable[[int], Segment],
        width: int,
        missing: Sequence[int],
        made_of: Mapping[str, Any],
    ) -> None:
        pair = recipe.pair
        score = jax.jit(
            score_trajectories,
            static_argnames=("config", "top_k", "vocab_size"),
            out_shardings=None if pair.mesh is None else batch_sharding(pair.mesh),
        )
        with Progress(len(missing), label="teacher scores") as progress:
            for done, number in enumerate(missing, 1):
                start = number * self._per_file
                stop = min(start + self._per_file, len(self._lengths))
                here = [segment(index) for index in range(start, stop)]
                # The last batch repeats its last trajectory, to be as large as the others.
                padded = here + here[-1:] * (self._per_file - len(here))
                t = place_rows(pack_segments([[x] for x in padded], width), pair.mesh)
                scores = score(
                    pair.teacher_params,
                    pair.teacher_config,
                    t,
                    top_k=max(made_of["top_k"], 1),
                    vocab_size=made_of["vocab_size"],
                )
                arrays = {}
                for name in self._fields:
                    rows = np.asarray(fetch(getattr(scores, name)))
                    pieces = [row[: len(x.tokens)] for row, x in zip(rows, here, strict=False)]
                    arrays[name] = np.concatenate(pieces)
                about = {"made_of": json.dumps({**made_of, "number": number})}
                content = save(arrays, {**about, "digest": _digest(about["made_of"], arrays)})
                first_does(functools.partial(write_atomic, self._file(number), content))
                progress.update(done)
                if done < len(missing):
                    check(f"{done} of {len(missing)} missing files of teacher scores are written.")


def _made_of(config: WritingConfig, recipe: Recipe, path: Path) -> dict[str, Any]:
    digest = hashlib.blake2b(digest_size=12)
    with path.open("rb") as file:
        while piece := file.read(2**22):
            digest.update(piece)
    pair = recipe.pair
    assert recipe.signal is not None and pair.teacher_config is not None
    assert config.teacher is not None
    return {
        "teacher": fingerprint(model_directory(config.teacher.path)),
        "teacher_dtype": config.teacher.dtype,
        "tokenizer": fingerprint(pair.student_directory)["tokenizer"],
        "prompt": dataclasses.asdict(config.prompt),
        "trajectories": digest.hexdigest(),
        "template": _template(pair),
        "top_k": 0 if recipe.signal.support == "sampled" else recipe.signal.top_k,
        "vocab_size": min(pair.student_config.vocab_size, pair.teacher_config.vocab_size),
        "batch_size": config.batch_size,
    }


def _template(pair: Pair) -> str:
    """Of the chat template that prompts were written with; empty without one."""
    text = str(pair.tokenizer.chat_template or "")
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest() if text else ""


def _digest(made_of: str, arrays: Mapping[str, np.ndarray]) -> str:
    """Of what a file says about itself, and of its arrays: names, types, shapes and bytes."""
    digest = hashlib.blake2b(made_of.encode(), digest_size=12)
    for name in sorted(arrays):
        x = arrays[name]
        digest.update(f"{name} {x.dtype} {x.shape}".encode())
        digest.update(np.ascontiguousarray(x).tobytes())
    return digest.hexdigest()


def _is_there(path: Path, made_of: Mapping[str, Any], fields: Sequence[str]) -> bool:
    """Whether a file holds what it should; a damaged one is told of, and does not count."""
    if not path.exists():
        return False
    try:
        with safe_open(path, framework="numpy") as file:
            about = file.metadata() or {}
            found = json.loads(about["made_of"])
            arrays = {name: file.get_tensor(name) for name in fields}
        if not isinstance(found, dict):
            raise ValueError("it does not say what it was made of")
    except (SafetensorError, KeyError, ValueError, OSError):
        raise ValueError(
            f"{path} is no file of teacher scores. Remove it; it is then computed anew."
        ) from None
    if about.get("digest") != _digest(about["made_of"], arrays):
        log.warning("%s is not what was written: computing its scores anew.", path)
        return False
    if found.get("number") != made_of["number"]:
        log.warning("%s holds the scores of another batch: computing its own anew.", path)
        return False
    for name, expected in made_of.items():
        if found.get(name) != expected:
            raise ValueError(
                f"{path} was made with another {name}: {found.get(name)}, now {expected}. Remove "
                f"{path.parent}, so that the scores are computed anew, or set the config to what "
                "the file says."
            )
    return True
