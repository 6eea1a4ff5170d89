"""A rollout plus a loss: what tells one arm of a comparison from another."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import optax

from distill.losses.signal import Signal
from distill.train.sharding import batch_multiple, batch_sharding, whole
from distill.train.state import TrainState
from distill.train.update import Metrics
from distill.trajectories import Source, Trajectories
from experiments.config.tree import RoundSettings
from experiments.data.batches import PromptBatch
from experiments.grading import POOL
from experiments.machine.processes import place_rows
from experiments.pair.pair import Pair
from experiments.rollouts.engine import Engine, Request, key_data
from experiments.rollouts.readable import readable_rows
from experiments.tasks.example import Example
from models.decoding.slots import Slots
from models.parameters import Params

TrainStep = Callable[[TrainState, Any, Any], tuple[TrainState, Metrics]]


class Recipe(abc.ABC):
    """How trajectories are written, and how a student trains on them.

    A subclass takes the sections that it reads, which `from_config` hands to it. It sets the
    attributes and builds both. A record says more about trajectories than they do themselves: any
    pytree with rows first.

    Attributes:
      pair: the models, as the method sees them: its teacher may be the student before training.
      rounds: what all rounds have in common.
      sources: whose tokens a response may hold.
      selects: whether some of what is written trains nothing on purpose.
      needs_answer: whether responses are graded, so that training problems must have answers.
      signal: what response tokens train for besides likelihood, of a teacher that sees just them.
      own_context: whether the teacher reads another prompt than the student; elsewhere the two
        models' renderings of a problem must agree.
      slots: the rollout in parts, as an engine drives it: its parameters are the pair (student's,
        teacher's), and it ends in (trajectories, record). One entry for each kind of writer, of
        which a row has one.
    """

    sources: tuple[Source, ...]
    selects: bool = False
    needs_answer: bool = False
    signal: Signal | None = None
    own_context: bool = False
    slots: tuple[Slots, ...]

    def __init__(self, pair: Pair, rounds: RoundSettings):
        self.pair, self.rounds = pair, rounds
        if not self.own_context:
            pair.require_same_prompts()

        def measured(*inputs: Any) -> tuple[Trajectories, Any, Metrics]:
            trajectories, record = self.rollout(*inputs)
            return trajectories, record, self.rollout_metrics(trajectories, record)

        everywhere = rows = None
        if pair.mesh is not None:
            everywhere, rows = whole(pair.mesh), batch_sharding(pair.mesh)
        places = None if rows is None else (rows, rows, everywhere)
        self._rollout = jax.jit(measured, out_shardings=places)
        self._measure = jax.jit(self.rollout_metrics, out_shardings=everywhere)

    @classmethod
    @abc.abstractmethod
    def from_config(cls, config: Any, pair: Pair) -> Recipe:
        """The recipe that a config of its method asks for.

        Raises:
          ValueError: it does not fit the models or the mesh.
        """

    def start_grading(self) -> None:
        """Starts and tests what grades responses, where the recipe does, before any is written.

        Raises:
          GradingError: answers cannot be compared on this machine.
        """
        if self.needs_answer:
            POOL.start()

    @property
    def max_total(self) -> int:
        """Most tokens of a response."""
        return self.rounds.max_total

    @abc.abstractmethod
    def rollout(self, *inputs: Any) -> tuple[Trajectories, Any]:
        """Pure: (student_params, teacher_params, prompts [B, P], prompt_lengths [B],
        sample_ids [B], key) to trajectories and their record."""

    @abc.abstractmethod
    def rollout_metrics(self, trajectories: Trajectories, record: Any) -> Metrics:
        """Pure: scalars of a rollout, with `tokens_*` by source, `tokens` and `rows`."""

    @abc.abstractmethod
    def train_step(
        self, optimizer: optax.GradientTransformation, micro_batches: int = 1
    ) -> TrainStep:
        """The pure update (state, teacher_params, inputs) to (state, metrics).

        Offline `inputs` are the trajectories; online, what `training_inputs` makes of them.
        """

    def writers(self, sample_ids: np.ndarray, key: jax.Array) -> np.ndarray:
        """Which of `slots` writes each row [B] of a round."""
        return np.zeros(len(sample_ids), np.int32)

    def training_inputs(
        self, trajectories: Trajectories, record: Any, batch: PromptBatch, copies: int
    ) -> tuple[Any, Metrics]:
        """Online: what the train step takes, and more scalars for the log. May work on the host."""
        return trajectories, {}

    def abstract_inputs(self, trajectories: Any) -> Any:
        """What `train_step` takes, as shapes, of the shapes of trajectories."""
        return trajectories

    def method_state(self, params: Params) -> dict[str, Any]:
        """Online: what the method carries from step to step. Pure; entries by name."""
        return {}

    @abc.abstractmethod
    def row(self, record: Any, b: int) -> dict[str, Any]:
        """What a file keeps of row `b` of a record (on the host)."""

    @abc.abstractmethod
    def row_metrics(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The shares among `rollout_metrics`, from lines of a file."""

    def __call__(
        self, student_params: Params, batch: PromptBatch, copies: int, round_: int
    ) -> tuple[Trajectories, Any, Metrics]:
        """`copies` trajectories of every prompt, side by side; noise belongs to the round."""
        rows = len(batch.prompts_BxP) * copies
        if 0 < self.rounds.slots < rows:
            return self._through_slots(student_params, batch, copies, round_)
        inputs = place_rows(
            (
                np.repeat(batch.prompts_BxP, copies, axis=0),
                np.repeat(batch.prompt_lengths_B, copies),
                self.sample_ids(batch, copies),
            ),
            self.pair.mesh,
        )
        return self._rollout(student_params, self.pair.teacher_params, *inputs, self._key(round_))

    @staticmethod
    def sample_ids(batch: PromptBatch, copies: int) -> np.ndarray:
        """Ids of the rows that `__call__` writes."""
        ids = batch.sample_ids_B[:, None] * copies + np.arange(copies, dtype=np.int32)
        return ids.reshape(-1)

    def requests(self, batch: PromptBatch, copies: int, round_: int) -> Iterator[Request]:
        """What `__call__` writes, a row at a time; a request's payload is its row's example."""
        key = key_data(self._key(round_))
        prompts = zip(
            batch.prompts_BxP,
            batch.prompt_lengths_B,
            batch.sample_ids_B,
            batch.examples,
            strict=True,
        )
        for prompt, length, sample_id, example in prompts:
            tokens = tuple(map(int, prompt[:length]))
            for copy in range(copies):
                yield Request(tokens, int(sample_id) * copies + copy, key, example)

    def engine(self, writer: int = 0) -> Engine:
        """Slots for one writer: `synthesis.slots` of them, or as many as a batch has rows."""
        return Engine(
            self.slots[writer],
            self.rounds.slots or self.rounds.batch_size,
            self.rounds.max_prompt,
            batch_multiple(self.pair.mesh),
        )

    def _key(self, round_: int) -> jax.Array:
        return jax.random.fold_in(jax.random.key(self.rounds.seed), round_)

    def _through_slots(
        self, student_params: Params, batch: PromptBatch, copies: int, round_: int
    ) -> tuple[Trajectories, Any, Metrics]:
        """The same trajectories, the same rows, by way of slots and the host."""
        requests = list(self.requests(batch, copies, round_))
        ids = np.array([request.sample_id for request in requests], np.int32)
        place = {int(sample_id): row for row, sample_id in enumerate(ids)}
        found: list[Any] = [None] * len(requests)
        params = student_params, self.pair.teacher_params
        writer_B = self.writers(ids, self._key(round_))
        for writer in range(len(self.slots)):
            own = [r for r, w in zip(requests, writer_B, strict=True) if w == writer]
            for outputs, done in self.engine(writer).run(params, own):
                for b, request in enumerate(done):
                    found[place[request.sample_id]] = jax.tree.map(lambda x: x[b], outputs)  # noqa: B023
        rows = jax.tree.map(lambda *rows: np.stack(rows), *found)
        trajectories, record = place_rows(rows, self.pair.mesh)
        return trajectories, record, self._measure(trajectories, record)

    def readable(
        self, trajectories: Trajectories, record: Any, examples: Sequence[Example]
    ) -> list[dict[str, Any]]:
        """A record for people per row, of host arrays."""
        return readable_rows(trajectories, examples, self.pair.tokenizer)

    def lines(
        self, trajectories: Trajectories, record: Any, examples: Sequence[Example]
    ) -> list[dict[str, Any]]:
        """What a file keeps of trajectories (on the host): a JSON-able dict per row."""
        lines = []
        for b, people in enumerate(self.readable(trajectories, record, examples)):
            source = np.asarray(trajectories.source_BxT[b])
            length = int(np.sum(source != Source.PADDING))
            lines.append(
                {
                    "token_ids": trajectories.tokens_BxT[b, :length].tolist(),
                    "source": source[:length].tolist(),
                    "likelihood_weights": trajectories.likelihood_weights_BxT[b, :length].tolist(),
                    "divergence_weights": trajectories.divergence_weights_BxT[b, :length].tolist(),
                    **self.row(record, b),
                    "tokens": {s.name.lower(): int(np.sum(source == s)) for s in self.sources},
                    "readable": people,
                }
            )
        return lines
