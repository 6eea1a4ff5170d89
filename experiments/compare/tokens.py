"""Batch sizes with which every arm trains on about as many tokens per update.

Arms write texts of different lengths and train on different parts of them, so that equal numbers
of trajectories are unequal numbers of tokens.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np

from distill.train.sharding import make_mesh
from experiments.config.tree import Config, SftConfig, WritingConfig
from experiments.data.batches import prompt_batches
from experiments.data.sources import load_source
from experiments.methods import make_recipe, require_writing
from experiments.methods.sft import Sft
from experiments.pair.pair import load_pair, start_student
from experiments.workdir.files import read_object, write_atomic
from experiments.workdir.logs import is_number

FILE = "batch.json"
_ADVICE = "Remove it; it is then measured anew."
# Trajectories that are measured, at least.
MEASURED = 256


@dataclasses.dataclass(frozen=True)
class BatchSize:
    """An arm's batch, and the measurement that it rests on.

    Attributes:
      batch_size: trajectories per update.
      tokens_per_trajectory: tokens that train, of the initial student's trajectories; None where
        all arms have batches of one size.
    """

    batch_size: int
    tokens_per_trajectory: float | None = None


def read_batch_size(directory: Path) -> BatchSize | None:
    """What was measured for the arm that lives in `directory`.

    Raises:
      ValueError: the file is damaged.
    """
    try:
        fields = read_object(directory / FILE, _ADVICE)
    except FileNotFoundError:
        return None
    names = {field.name for field in dataclasses.fields(BatchSize)}
    size, tokens = fields.get("batch_size"), fields.get("tokens_per_trajectory")
    if not set(fields) <= names or not isinstance(size, int) or size < 1:
        raise ValueError(f"{directory / FILE} holds no batch_size. {_ADVICE}")
    if tokens is not None and not is_number(tokens):
        raise ValueError(f"{directory / FILE}: tokens_per_trajectory={tokens!r}. {_ADVICE}")
    return BatchSize(size, tokens)


def fit_batch_size(config: Config, tokens_per_update: float, directory: Path) -> BatchSize:
    """Measures an arm, and writes down the batch size that comes closest to the target.

    It is a multiple of `synthesis.trajectories_per_prompt`, and of what the mesh divides a batch
    by.

    Raises:
      ValueError: even the smallest batch holds twice as many tokens, or rows are packed.
    """
    if isinstance(config, WritingConfig) and config.synthesis.pack_to:
        raise ValueError(
            f"synthesis.pack_to={config.synthesis.pack_to} with tokens_per_update: a batch counts "
            "packed rows, whose trajectories are not known before synthesis. Set pack_to to 0."
        )
    tokens = tokens_per_trajectory(config)
    unit = _unit(config)
    batch_size = max(1, round(tokens_per_update / (tokens * unit))) * unit
    if batch_size * tokens > 2 * tokens_per_update:
        raise ValueError(
            f"tokens_per_update={tokens_per_update:g}: a batch of {unit} trajectories already "
            f"trains on {unit * tokens:.0f} tokens. Raise it."
        )
    fitted = BatchSize(batch_size, tokens)
    directory.mkdir(parents=True, exist_ok=True)
    write_atomic(directory / FILE, (json.dumps(dataclasses.asdict(fitted)) + "\n").encode())
    return fitted


def _unit(config: Config) -> int:
    copies = 1
    if isinstance(config, WritingConfig):
        copies = config.synthesis.trajectories_per_prompt
    mesh = make_mesh(config.mesh.sizes)
    return copies if mesh is None else math.lcm(copies, mesh.shape["data"] * mesh.shape["fsdp"])


def tokens_per_trajectory(config: Config) -> float:
    """Mean number of tokens that train, per trajectory of the initial student that trains at all.

    Raises:
      ValueError: the config does not fit, or nothing that was written trains.
    """
    pair = load_pair(config)
    counts: list[int] = []
    if isinstance(config, SftConfig):
        batches: Any = Sft(config, pair).batches
        while len(counts) < MEASURED:
            counts += np.count_nonzero(next(batches).weights_BxT, axis=1).tolist()
        return float(np.mean(counts))
    config, recipe = require_writing(config), make_recipe(config, pair)
    recipe.start_grading()
    params = start_student(pair, config.seed)
    copies = config.synthesis.trajectories_per_prompt
    prompts = prompt_batches(
        load_source(config.data.train.spec, recipe.needs_answer),
        pair.render,
        batch_size=config.batch_size // copies,
        max_prompt_tokens=config.prompt.max_tokens,
        seed=config.seed,
    )
    for round_ in range(-(-MEASURED // config.batch_size)):
        batch = next(prompts)
        trajectories, record, _ = jax.device_get(recipe(params, batch, copies, round_))
        examples = [example for example in batch.examples for _ in range(copies)]
        for line in recipe.lines(trajectories, record, examples):
            weights = np.asarray([line["likelihood_weights"], line["divergence_weights"]])
            counts.append(int(np.count_nonzero(weights.any(axis=0))))
    # A file leaves out what trains nothing; online it takes a place in its batch.
    if config.synthesis.mode == "offline":
        counts = [n for n in counts if n]
    if not any(counts):
        raise ValueError("Nothing that this arm's initial student wrote trains.")
    return float(np.mean(counts))
