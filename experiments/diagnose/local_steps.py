"""A few steps on one prefix at a time, as `experiments.local_test` runs and explains them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.table import Table

import models
import topd
from distill.rollouts.assembly import assemble
from distill.train.state import create_state
from distill.train.update import make_train_step
from distill.trajectories import Source
from experiments.config.data_sections import DataSettings
from experiments.config.tree import Config, TopdConfig
from experiments.data.batches import prompt_batches
from experiments.data.sources import load_source
from experiments.evaluate.intervals import bootstrap
from experiments.methods.topd import TopdRecipe
from experiments.pair.pair import load_pair, start_student
from models.decoding.decode import put
from models.parameters import Params
from models.transformer import embed
from topd.candidates import Starts
from topd.transport import compare


class Prefixes(flax.struct.PyTreeNode):
    """Divergent prefixes and what both models write behind them; N rows.

    Attributes:
      text_NxT, at_N: rollouts, and where windows open: the prefix is what lies before.
      student_NxK, teacher_NxK, student_counts_N, teacher_counts_N, plan_NxKxK: as in `topd.Probe`.
    """

    text_NxT: Any
    at_N: Any
    student_NxK: Any
    teacher_NxK: Any
    student_counts_N: Any
    teacher_counts_N: Any
    plan_NxKxK: Any


def find_prefixes(
    recipe: TopdRecipe, data: DataSettings, params: Params, count: int, batch_size: int
) -> tuple[Prefixes, float]:
    """The first `count` candidates with a D_OT above the quantile of all low-loss ones seen.

    Args:
      data: the problems, taken in their order.

    Raises:
      ValueError: all training problems together have fewer.
    """
    source = load_source(data.spec)
    batches = prompt_batches(
        source,
        recipe.pair.render,
        batch_size=batch_size,
        max_prompt_tokens=recipe.rounds.max_prompt,
        shuffle=False,
    )
    rows, distances, lows = [], [], []
    for round_ in range(max(1, len(source) // batch_size)):
        trajectories, record, _ = recipe(params, next(batches), 1, round_)
        text, p = jax.device_get((trajectories.tokens_BxT, record["probe"]))
        lows.append(p.low_distance_Rx1[p.low_valid_Rx1])
        b, w = np.nonzero(p.starts.valid_BxW)
        found = (
            p.starts.at_BxW,
            p.student_BxWxK,
            p.teacher_BxWxK,
            p.student_counts_BxW,
            p.teacher_counts_BxW,
            p.plan_BxWxKxK,
        )
        rows.append(Prefixes(text[b], *(x[b, w] for x in found)))
        distances.append(p.distance_BxW[b, w])
        bound = np.quantile(np.concatenate(lows), recipe.guidance.high_quantile)
        threshold = max(float(bound), recipe.guidance.least_distance)
        above = np.nonzero(np.concatenate(distances) > threshold)[0]
        if len(above) >= count:
            return _take(rows, above[:count]), threshold
    raise ValueError(
        f"prefixes={count}, but the {len(source)} training problems gave {len(above)} divergent "
        "ones. Lower it, or raise data.train.size."
    )


def _take(batches: list[Prefixes], rows: np.ndarray) -> Prefixes:
    return jax.tree.map(lambda *x: np.concatenate(x)[rows], *batches)


def make_local_steps(
    recipe: TopdRecipe, initial: Params, steps: int, rate: float
) -> Callable[[Prefixes, jax.Array], tuple[jax.Array, jax.Array]]:
    """(prefixes, lambda) to D_OT [N] before and after, each prefix on its own."""
    pair = recipe.pair
    student, teacher = pair.student_config, pair.teacher_config
    assert teacher is not None and pair.teacher_params is not None
    width = recipe.windows.tokens
    settings = dataclasses.replace(recipe.guidance, lambda_traj=1.0, gradient_ratio_every=0)
    transport = dataclasses.replace(recipe.transport, embedding="static")
    optimizer = optax.adam(rate)
    if student.lora is not None:
        optimizer = optax.masked(optimizer, models.trainable(initial, student))
    theirs = pair.teacher_params

    def distance(p: Prefixes, tokens: jax.Array, counts: jax.Array) -> jax.Array:
        own, other = (embed(initial, student, x) for x in (tokens, p.teacher_NxK))
        return compare(own, other, counts, p.teacher_counts_N, transport).distance_N[0]

    def one(prefix: Prefixes, lambda_traj: jax.Array) -> tuple[jax.Array, jax.Array]:
        p = jax.tree.map(lambda x: x[None], prefix)
        ends = p.at_N + p.student_counts_N
        text = jnp.pad(p.text_NxT, ((0, 0), (0, width)))
        text = put(text, p.student_NxK, p.at_N, p.student_counts_N)
        row = assemble(text, jnp.full_like(text, Source.STUDENT), p.at_N, ends, "divergence")
        there = jnp.ones((1, 1), bool)
        nothing = jnp.zeros((1, 1))
        probe = topd.Probe(
            starts=Starts(p.at_N[:, None], there),
            student_BxWxK=p.student_NxK[:, None],
            teacher_BxWxK=p.teacher_NxK[:, None],
            student_counts_BxW=p.student_counts_N[:, None],
            teacher_counts_BxW=p.teacher_counts_N[:, None],
            plan_BxWxKxK=p.plan_NxKxK[:, None],
            distance_BxW=nothing,
            losses_BxW=nothing,
            divergence_BxW=None,
            median_B=None,
            low_distance_Rx1=None,
            low_valid_Rx1=None,
            teacher_hidden_BxTxD=models.forward_hidden(theirs, teacher, row.tokens_BxT[:, :-1]),
        )

        def loss(params: Params) -> topd.GuidedSums:
            return topd.guided_loss(
                params,
                student,
                theirs,
                teacher,
                row,
                probe,
                there,
                recipe.opd,
                settings,
                (1.0, lambda_traj),
            )

        update = make_train_step(loss, optimizer)
        state = create_state(initial, optimizer)
        state = jax.lax.fori_loop(0, steps, lambda _, state: update(state)[0], state)
        again = models.generate(
            state.params,
            student,
            text,
            p.at_N,
            jax.random.key(recipe.rounds.seed),
            width,
            temperature=recipe.windows.temperature,
            eos_ids=pair.eos_ids,
            vocab_size=pair.vocab_size,
        )
        before = distance(p, p.student_NxK, p.student_counts_N)
        return before, distance(p, again.tokens_BxN, again.lengths_B)

    return jax.jit(lambda p, weight: jax.lax.map(lambda x: one(x, weight), p))


def local_test(
    config: Config, prefixes: int, steps: int, rate: float, lambdas: list[float]
) -> dict[str, Any]:
    """What local_test.json holds, without flags and environment.

    Raises:
      ValueError: the config is no TOPD with windows and a rule, or a number is out of range.
    """
    if not isinstance(config, TopdConfig) or config.guidance.objective != "trajectory":
        raise ValueError("The local test needs L_traj: use configs/topd.py.")
    if config.guidance.rule != "transport":
        raise ValueError("guidance.rule='loss' has no threshold to tell divergent prefixes by.")
    for name, value in (("prefixes", prefixes), ("steps", steps)):
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1.")
    if not rate > 0 or any(not x > 0 for x in lambdas):
        raise ValueError(f"rate={rate} and lambdas={lambdas} must be above 0.")
    pair = load_pair(config)
    if pair.mesh is not None:
        raise ValueError(
            "The local test takes one prefix at a time, on one device, and there are "
            f"{pair.mesh.size}. Hide the others, for example with CUDA_VISIBLE_DEVICES=0."
        )
    recipe = TopdRecipe.from_config(config, pair)
    initial = start_student(pair, config.seed)
    found, threshold = find_prefixes(
        recipe, config.data.train, initial, prefixes, config.batch_size
    )
    measure = make_local_steps(recipe, initial, steps, rate)
    results: dict[str, Any] = {"prefixes": prefixes, "threshold": threshold, "after": {}}
    for weight in (0.0, *lambdas):
        before, after = (np.asarray(x) for x in measure(found, jnp.float32(weight)))
        results["before"] = dataclasses.asdict(bootstrap(before))
        name = f"topd, lambda {weight:g}" if weight else "opd"
        closer = float(np.mean(after < before - 1e-6))
        results["after"][name] = {**dataclasses.asdict(bootstrap(after)), "closer": closer}
    return results


def table(results: dict[str, Any]) -> Table:
    """D_OT before and after."""
    shown = Table("", "mean D_OT", "95 % interval", "closer", title="Local test")

    def row(name: str, x: dict[str, float]) -> None:
        share = f"{100 * x['closer']:.0f} %" if "closer" in x else ""
        shown.add_row(name, f"{x['mean']:.3f}", f"{x['low']:.3f} to {x['high']:.3f}", share)

    row("before", results["before"])
    for name, after in results["after"].items():
        row(name, after)
    return shown
