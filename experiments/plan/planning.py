"""The plan of a run: what its arrays weigh on a device, and what its programs take."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from rich.console import Console

import models
from distill.losses.chunked import Readout, block_length
from distill.losses.trajectory_loss import LossSums, trajectory_loss
from distill.train.sharding import AXES, batch_multiple, batch_sharding, make_mesh, round_up
from distill.train.update import make_train_step
from distill.trajectories import Trajectories
from experiments.config.tree import Config, SftConfig, WritingConfig
from experiments.machine.placement import (
    placement_table,
    placements,
    state_groups,
    total,
)
from experiments.methods import make_recipe
from experiments.methods.base import Base
from experiments.methods.sync import init_method_state, refreshing
from experiments.pair.pair import Pair, abstract_pair
from experiments.plan.hlo import program_cost
from experiments.plan.printing import print_memory, print_program, print_rollout
from experiments.plan.programs import PROGRAMS, Plan, Program
from experiments.rollouts.recipe import Recipe
from models.attention import choose_kernel
from models.decoding.slots import Rows, Slots
from models.parameters import Params


class _Planned(Base):
    """A method's state, as shapes."""

    def __init__(self, config: Config, pair: Pair, recipe: Recipe | None):
        super().__init__(pair, config.optimizer, config.steps, config.batch_size)
        self.recipe = recipe
        # Updates between refreshes of the weights that write; 0 where they are never refreshed.
        self._sync_every = 0
        if isinstance(config, WritingConfig) and config.synthesis.mode == "online":
            self._sync_every = config.synthesis.sync_every

    def method_state(self, params: Params) -> dict[str, Any]:
        if self.recipe is None or not self._sync_every:
            return {}
        lagging = init_method_state(params, self._sync_every)
        return {**lagging, **self.recipe.method_state(params)}

    def lower(self, inputs: Any) -> Any:
        """The train step, lowered."""
        student = self.pair.student_config
        if self.recipe is None:

            def loss_fn(params: Params, trajectories: Trajectories) -> LossSums:
                return trajectory_loss(params, student, trajectories)

            step = make_train_step(loss_fn, self.optimizer, student, self.micro_batches)
            return self.jit_step(step).lower(self.abstract(), inputs)
        step = self.recipe.train_step(self.optimizer, self.micro_batches)
        if self._sync_every:
            step = refreshing(step, self._sync_every)
        return self.jit_step(step).lower(self.abstract(), self.recipe.pair.teacher_params, inputs)


def make_plan(
    config: Config,
    sizes: Mapping[str, int],
    devices: Sequence[Any],
    memory_gb: float | None,
    programs: Sequence[str],
    console: Console,
) -> Plan:
    """Plans a run and prints it.

    Raises:
      FileNotFoundError: a model's directory or its config.json is missing.
      ValueError: the config is wrong, the mesh does not fill the devices or divide the arrays, or a
        program is unknown.
    """
    for name in programs:
        if name not in PROGRAMS:
            raise ValueError(f"--programs: {name!r} is not one of {PROGRAMS}.")
    mesh = make_mesh(sizes, devices)
    if mesh is None:  # a mesh says which device is meant
        mesh = Mesh(np.asarray(devices).reshape(1, 1, 1), AXES)
    pair = abstract_pair(config, mesh)
    recipe = make_recipe(config, pair) if isinstance(config, WritingConfig) else None
    pair = pair if recipe is None else recipe.pair  # whose teacher may be the student
    planned = _Planned(config, pair, recipe)
    state = planned.abstract()
    arrays = state_groups(state, pair.teacher_params)
    console.print(placement_table(mesh, arrays))
    groups = {name: total(placements(tree)) for name, tree in arrays.items()}
    rows, text = _rows_of(config, mesh), _width(config)
    width = config.prompt.max_tokens
    writers = (
        []
        if recipe is None
        else [
            _Writer(slots, *_rollout_shapes(slots, pair, state.params, width, rows))
            for slots in recipe.slots
        ]
    )
    plan = Plan(
        groups=groups,
        # One kind of writer is at work at a time.
        decoding=max((total(placements(w.params))[1] for w in writers), default=0),
        row=max((_row_bytes(w.state, rows, mesh) for w in writers), default=0),
        batch_parts=batch_multiple(mesh),
        programs={},
    )
    for writer in writers:
        positions = config.prompt.max_tokens + writer.slots.max_tokens
        caches = _cache_rows(writer.slots, pair, positions)
        print_rollout(console, plan, caches, positions, rows)
    inputs = _inputs(config.batch_size, recipe, mesh, text)
    kernel = choose_kernel(pair.student_config, text - 1)
    where = f"{config.batch_size} x {text} tokens, attention {kernel!r}"
    todo: list[tuple[str, str, Callable[[], Any]]] = []
    todo.append(("train", f"train step, {where}", lambda: planned.lower(inputs)))
    for writer in writers:
        what = f"rollout, {writer.slots.chunk_tokens} tokens of {rows} rows, caches full"
        todo.append(("rollout", what, functools.partial(_lower_chunk, writer)))
        what = f"prefill of {rows} prompts, {config.prompt.max_tokens} tokens"
        todo.append(
            (
                "prefill",
                what,
                functools.partial(_lower_prefill, writer, config.prompt.max_tokens, rows, mesh),
            )
        )
    blocks = _blocks(config.batch_size // config.optimizer.micro_batches, pair, text)
    for name, title, lower in todo:
        if name in programs:
            program = _compile(lower, blocks if name == "train" else 1)
            print_program(console, title, program, blocks if name == "train" else None)
            before = plan.programs.get(name)
            if before is None or program.temporary > before.temporary:
                plan.programs[name] = program
    print_memory(console, plan, memory_gb)
    return plan


def _rows_of(config: Config, mesh: Mesh) -> int:
    """Rows of a rollout."""
    slots = config.synthesis.slots if isinstance(config, WritingConfig) else 0
    return round_up(slots or config.batch_size, mesh)


def _width(config: Config) -> int:
    """Tokens of a training row."""
    if isinstance(config, SftConfig):
        return config.sft.max_tokens
    assert isinstance(config, WritingConfig)
    return config.synthesis.pack_to or config.prompt.max_tokens + config.max_total


def _inputs(batch_size: int, recipe: Recipe | None, mesh: Mesh, width: int) -> Any:
    shape = batch_size, width

    def array(dtype: Any) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype)

    i, f = array(jnp.int32), array(jnp.float32)
    trajectories = Trajectories(i, i, f, f, i, i)
    inputs = trajectories if recipe is None else recipe.abstract_inputs(trajectories)
    return _placed(inputs, batch_sharding(mesh))


def _placed(tree: Any, sharding: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


@dataclasses.dataclass(frozen=True)
class _Writer:
    """A rollout in parts, and shapes: parameters as decoding has them, a state with full caches."""

    slots: Slots
    params: Any
    state: Any


def _rollout_shapes(
    slots: Slots, pair: Pair, params: Params, width: int, rows: int
) -> tuple[Any, Any]:
    both = params, pair.teacher_params
    prepared = jax.jit(slots.prepare).lower(both).compile()
    shapes = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        jax.eval_shape(slots.prepare, both),
        prepared.output_shardings,
    )

    def begin() -> Any:
        ones = jnp.ones(rows, jnp.int32)
        keys = jnp.broadcast_to(jax.random.key(0), (rows,))
        caches = slots.init_caches(rows, width + slots.max_tokens)
        fresh = Rows(jnp.zeros((rows, width), jnp.int32), ones, keys, ones, 0 * ones)
        return slots.pinned(slots.begin(caches, fresh))

    compiled = jax.jit(begin).lower().compile()
    state = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        jax.eval_shape(begin),
        compiled.output_shardings,
    )
    return shapes, state


def _cache_rows(slots: Slots, pair: Pair, length: int) -> dict[str, int]:
    """Bytes of a row's keys and values, by model."""
    alone = pair.teacher_config != pair.student_config and slots.configs == (pair.teacher_config,)
    names = ("teacher",) if alone else ("student", "teacher")
    return {
        name: 2 * c.num_layers * c.num_kv_heads * c.head_dim * length * jnp.dtype(c.dtype).itemsize
        for name, c in zip(names, slots.configs, strict=False)
    }


def _row_bytes(state: Any, rows: int, mesh: Mesh) -> int:
    """Bytes of a row of a rollout's state, on each device that holds a part of it."""
    held = sum(p.held for p in placements(state))
    return held * batch_multiple(mesh) // rows


def _lower_chunk(writer: _Writer) -> Any:
    slots = writer.slots

    def chunk(params: Any, state: Any) -> Any:
        return slots.pinned(slots.chunk(params, state))

    return jax.jit(chunk, donate_argnums=1).lower(writer.params, writer.state)


def _lower_prefill(writer: _Writer, width: int, rows: int, mesh: Mesh) -> Any:
    slots, place = writer.slots, batch_sharding(mesh)
    prompts = jax.ShapeDtypeStruct((rows, width), jnp.int32, sharding=place)
    lengths = jax.ShapeDtypeStruct((rows,), jnp.int32, sharding=place)

    def prefill(params: Any, prompts: jax.Array, lengths: jax.Array) -> Any:
        return slots.prefill(params, prompts, lengths, slots.init_caches(rows, width))

    return jax.jit(prefill).lower(writer.params, prompts, lengths)


def _blocks(rows: int, pair: Pair, width: int) -> int:
    """Blocks of the head's logits, of which those with a trained token are formed."""

    def shapes(c: models.ModelConfig | None) -> Any:
        if c is None:
            return None
        hidden = jax.ShapeDtypeStruct((rows, width - 1, c.hidden_size), c.dtype)
        return Readout(hidden, jax.ShapeDtypeStruct((c.vocab_size, c.hidden_size), c.dtype), c)  # type: ignore[arg-type]

    block = block_length(shapes(pair.student_config), shapes(pair.teacher_config))
    return math.ceil((width - 1) / min(block, width - 1))


def _compile(lower: Callable[[], Any], blocks: int) -> Program:
    start = time.monotonic()
    compiled = lower().compile()
    memory = compiled.memory_analysis()
    return Program(
        temporary=memory.temp_size_in_bytes,
        output=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        cost=program_cost(compiled.as_text(), blocks),
        seconds=time.monotonic() - start,
    )
