"""One look into the near future of a batch: candidates, windows, and how far they are apart.

What is pure and needs no gradient of TOPD (arXiv 2606.00305, steps 1 to 4 of its method, as
numbered in docs/topd.md).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

import models
from distill.losses.chunked import log_probs, map_logits, readout
from distill.losses.signal import Signal, token_divergence
from distill.trajectories import Source, Trajectories
from models.decoding.decode import check_ends
from models.parameters import Params
from topd.candidates import Starts, high_loss, low_loss
from topd.settings import GuidanceSettings, TransportSettings, WindowSettings
from topd.transport import compare
from topd.windows import Windows, open_windows, prepare, read, student_reads

# Rows are not read in less than this: there is nothing to be saved.
_NARROWEST = 64


class Losses(flax.struct.PyTreeNode):
    """What the student's tokens cost, in nats; 0 at the first token. [B, T].

    Attributes:
      teacher_nll_BxT: -log q of the token.
      divergence_BxT: the OPD loss, unweighted; None where nothing asks for it.
    """

    teacher_nll_BxT: jax.Array
    divergence_BxT: jax.Array | None


class Probe(Windows):
    """What the loss needs to know of near futures. Nothing has a gradient.

    Attributes:
      starts: of the windows; their positions are the candidates.
      student_BxWxK, teacher_BxWxK, student_counts_BxW, teacher_counts_BxW: as in `Windows`.
      plan_BxWxKxK, distance_BxW: G and D_OT; 0 where there is no window.
      losses_BxW: the candidates' own losses, of the kind that `windows.candidates` names.
      divergence_BxW, median_B: the candidates' OPD loss, and the median of their rollout's; None
        unless losses are capped.
      low_distance_Rx1, low_valid_Rx1: D_OT at low-loss positions, and whether there is one;
        None where nothing is compared to it.
      teacher_hidden_BxTxD: what the teacher says of the rollouts, read through its head; T - 1
        states.
    """

    plan_BxWxKxK: jax.Array
    distance_BxW: jax.Array
    losses_BxW: jax.Array
    divergence_BxW: jax.Array | None
    median_B: jax.Array | None
    low_distance_Rx1: jax.Array | None
    low_valid_Rx1: jax.Array | None
    teacher_hidden_BxTxD: jax.Array


ProbeRollouts = Callable[[Params, Params, Trajectories, jax.Array, jax.Array], Probe]


def token_losses(
    student: tuple[Params, models.ModelConfig, jax.Array] | None,
    teacher: tuple[Params, models.ModelConfig, jax.Array],
    trajectories: Trajectories,
    signal: Signal,
    vocab_size: int,
) -> Losses:
    """Losses of all tokens; no array is [B, T, V].

    Args:
      student, teacher: parameters, config and hidden states [B, T - 1, D]. Without a student there
        is no divergence.
      vocab_size: distributions run over the ids below it.
    """
    t = trajectories
    extras = t.tokens_BxT[:, 1:], t.divergence_weights_BxT[:, 1:]

    def costs(p: Any, q: jax.Array, x: Any) -> tuple[jax.Array, jax.Array | None]:
        tokens, q = jnp.clip(x[0], max=vocab_size - 1), q[..., :vocab_size]
        nll = -log_probs(q, tokens)
        if p is None:
            return nll, None
        return nll, token_divergence(signal, q, p[..., :vocab_size], tokens, x[1])

    if student is None:
        found = map_logits(lambda q, _, x: costs(None, q, x), readout(*teacher), None, extras)
    else:
        found = map_logits(costs, readout(*student), readout(*teacher), extras)
    return Losses(*jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (1, 0))), found))


def distances(
    windows: Windows, vectors: tuple[jax.Array, jax.Array], settings: TransportSettings
) -> tuple[jax.Array, jax.Array]:
    """Plans [B, W, K, K] and D_OT [B, W] of windows; 0 where there is none.

    Args:
      windows, vectors: from `open_windows`.
    """
    valid = windows.starts.valid_BxW
    counts = windows.student_counts_BxW, windows.teacher_counts_BxW
    own, theirs, own_counts, their_counts = (
        x.reshape(-1, *x.shape[2:]) for x in (*vectors, *counts)
    )
    found = compare(own, theirs, own_counts, their_counts, settings)
    plan, distance = (
        x.reshape(*valid.shape, *x.shape[1:]) for x in (found.plan_NxKxK, found.distance_N)
    )
    return jnp.where(valid[..., None, None], plan, 0.0), jnp.where(valid, distance, 0.0)


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """What is fixed before a probe; see `make_probe`.

    Attributes:
      configs: the student's and the teacher's.
      vocab_size: ids from here on are not written in windows.
      shared_vocab_size: losses run over the ids below it, which both models have.
    """

    configs: tuple[models.ModelConfig, models.ModelConfig]
    windows: WindowSettings
    transport: TransportSettings
    guidance: GuidanceSettings
    signal: Signal
    eos_ids: tuple[int, ...]
    vocab_size: int
    shared_vocab_size: int


def probe_at_width(
    plan: Plan,
    width: int,
    params: tuple[Params, Params],
    whole: Trajectories,
    sample_ids_B: jax.Array,
    key: jax.Array,
) -> Probe:
    """The probe of rollouts of which none has more than `width` tokens."""
    windows, (s_config, t_config) = plan.windows, plan.configs
    trajectories: Trajectories = jax.tree.map(lambda x: x[:, :width], whole)
    padding = (0, 0), (0, whole.tokens_BxT.shape[1] - width)
    capped = plan.guidance.objective != "trajectory"
    by_divergence = windows.candidates == "divergence"
    theirs = read(params[1], t_config, trajectories, windows.tokens)
    own_cache, student = None, None
    reads = student_reads(windows, plan.transport)
    if reads or capped or by_divergence:
        own = read(params[0], s_config, trajectories, windows.tokens)
        own_cache = own.cache if reads else None
        student = (params[0], s_config, own.hidden_BxTxD) if capped or by_divergence else None
    teacher = params[1], t_config, theirs.hidden_BxTxD
    losses = token_losses(student, teacher, trajectories, plan.signal, plan.shared_vocab_size)
    # Positions are chosen among those of whole rows, so that no draw depends on the width.
    losses = jax.tree.map(lambda x: jnp.pad(x, padding), losses)
    scores_BxT: Any = losses.divergence_BxT if by_divergence else losses.teacher_nll_BxT
    eligible_BxT = whole.divergence_weights_BxT != 0

    def look(caches: Any, text: Trajectories, starts: Starts, ids_B: jax.Array) -> Any:
        """Windows, their plans [B, W, K, K] and distances [B, W]."""
        found, vectors = open_windows(
            (params[0], s_config, caches[0]),
            (params[1], t_config, caches[1]),
            text,
            starts,
            ids_B,
            key,
            windows,
            plan.transport,
            plan.eos_ids,
            plan.vocab_size,
        )
        return found, *distances(found, vectors, plan.transport)

    caches = own_cache, theirs.cache
    starts = high_loss(scores_BxT, eligible_BxT, windows.share, windows.per_rollout)
    found, plans, distance = look(caches, trajectories, starts, sample_ids_B)
    low_distance = low_valid = None
    if plan.guidance.needs_low_losses:
        few_caches, few, ids_B, scores, eligible = jax.tree.map(
            lambda x: x[: windows.low_rows or None],
            (caches, trajectories, sample_ids_B, scores_BxT, eligible_BxT),
        )
        low = low_loss(scores, eligible, windows.low_quantile, ids_B, key)
        low_distance, low_valid = look(few_caches, few, low, ids_B)[2], low.valid_BxW

    def at_starts(x: jax.Array) -> jax.Array:
        return jnp.where(starts.valid_BxW, jnp.take_along_axis(x, starts.at_BxW, axis=1), 0.0)

    divergence = median = None
    if capped:
        divergence = at_starts(losses.divergence_BxT)
        there = jnp.where(eligible_BxT, losses.divergence_BxT, jnp.nan)
        median = jnp.nan_to_num(jnp.nanmedian(there, axis=1))
    return Probe(
        **vars(found),
        plan_BxWxKxK=plans,
        distance_BxW=distance,
        losses_BxW=at_starts(scores_BxT),
        divergence_BxW=divergence,
        median_B=median,
        low_distance_Rx1=low_distance,
        low_valid_Rx1=low_valid,
        teacher_hidden_BxTxD=jnp.pad(theirs.hidden_BxTxD, (*padding, (0, 0))),
    )


def make_probe(
    student_config: models.ModelConfig,
    teacher_config: models.ModelConfig,
    windows: WindowSettings,
    transport: TransportSettings,
    guidance: GuidanceSettings,
    signal: Signal,
    eos_ids: Sequence[int],
    vocab_size: int | None = None,
) -> ProbeRollouts:
    """Builds the pure `probe(student_params, teacher_params, trajectories, sample_ids [B], key)`.

    Args:
      guidance: decides what is looked at: low-loss positions, the candidates' OPD losses.
      signal: the OPD loss.
      eos_ids: tokens that end a window.
      vocab_size: windows are written below it; losses run over the ids that both models have.

    Returns:
      The function, to be jitted by the caller. Key and ids are the rollout's: windows draw under a
      role of their own.

    Raises:
      ValueError: no end-of-sequence token.
    """
    both = min(student_config.vocab_size, teacher_config.vocab_size)
    plan = Plan(
        configs=(student_config, teacher_config),
        windows=windows,
        transport=transport,
        guidance=guidance,
        signal=signal,
        eos_ids=check_ends(eos_ids),
        vocab_size=both if vocab_size is None else min(vocab_size, both),
        shared_vocab_size=both,
    )

    def probe(
        student_params: Params,
        teacher_params: Params,
        trajectories: Trajectories,
        sample_ids_B: jax.Array,
        key: jax.Array,
    ) -> Probe:
        params = prepare(student_params, student_config), prepare(teacher_params, teacher_config)
        widths = _widths(trajectories.tokens_BxT.shape[1])
        longest = jnp.max(jnp.sum(trajectories.source_BxT != Source.PADDING, axis=1))
        which = jnp.sum(longest > jnp.asarray(widths[:-1], jnp.int32))
        branches = [functools.partial(probe_at_width, plan, width) for width in widths]
        return jax.lax.switch(which, branches, params, trajectories, sample_ids_B, key)

    return probe


def _widths(length: int) -> list[int]:
    """Widths at which rows of `length` positions are read: all, or less where that is enough.

    Decoding reads a cache's whole capacity, and most batches end long before their budget.
    """
    parts = (math.ceil(length / 4), math.ceil(length / 2))
    return [*(width for width in parts if width >= _NARROWEST), length]
