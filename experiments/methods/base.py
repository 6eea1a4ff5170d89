"""What methods share: the optimiser, and states placed on the mesh."""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import Mesh

import models
from distill.train.optimizer import OptimizerSettings, make_optimizer, make_schedule
from distill.train.sharding import batch_multiple, state_shardings, whole
from distill.train.state import TrainState, create_state
from experiments.machine.processes import place_rows
from experiments.pair.pair import Pair
from models.parameters import Params


def check_rows(name: str, rows: int, mesh: Mesh | None) -> None:
    """Refuses rows that do not divide over the devices along the batch.

    Raises:
      ValueError: names the field `name`, and the next sizes that would do.
    """
    parts = batch_multiple(mesh)
    if rows % parts:
        assert mesh is not None
        over = {axis: mesh.shape[axis] for axis in ("data", "fsdp")}
        less = rows - rows % parts
        raise ValueError(
            f"{name}={rows} does not divide over the {parts} devices along the batch, mesh={over}. "
            f"Use {f'{less} or ' if less else ''}{less + parts}, or another mesh."
        )


class Base:
    """A method's optimiser and state. Subclasses add batches and the step."""

    def __init__(self, pair: Pair, settings: OptimizerSettings, steps: int, batch_size: int):
        self.pair, self.micro_batches = pair, settings.micro_batches
        check_rows("batch_size", batch_size, pair.mesh)
        if self.micro_batches > 1:
            rows = batch_size // self.micro_batches
            check_rows("batch_size / optimizer.micro_batches", rows, pair.mesh)
        self.schedule = make_schedule(settings, steps)
        self.optimizer = make_optimizer(settings, steps)

    def method_state(self, params: Params) -> dict[str, Any]:
        """What the method carries besides parameters and optimiser."""
        return {}

    def _create(self, params: Params) -> TrainState:
        return create_state(params, self.optimizer, self.method_state(params))

    def shardings(self) -> TrainState | None:
        """Where the state's arrays live; None without a mesh."""
        if self.pair.mesh is None:
            return None
        state = jax.eval_shape(self._create, models.abstract(self.pair.student_config))
        return state_shardings(state, self.optimizer, self.pair.student_config, self.pair.mesh)

    def init(self, params: Params) -> TrainState:
        """The state before the first update."""
        return jax.jit(self._create, out_shardings=self.shardings())(params)

    def abstract(self) -> TrainState:
        """Shapes, dtypes and shardings of that state."""
        state = jax.eval_shape(self._create, models.abstract(self.pair.student_config))
        places = self.shardings()
        if places is None:
            return state
        return jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, places
        )

    def place(self, batch: Any) -> Any:
        """A batch of host arrays, rows first, on the devices."""
        return place_rows(batch, self.pair.mesh)

    def jit_step(self, train_step: Any) -> Any:
        """The train step, compiled with the state's shardings; it donates the state."""
        places, mesh = self.shardings(), self.pair.mesh
        out = None if mesh is None else (places, whole(mesh))
        return jax.jit(train_step, donate_argnums=0, out_shardings=out)
