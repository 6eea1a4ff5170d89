"""Soft targets: what the transport plan says that the student should write at its future states.

TOPD (arXiv 2606.00305): ytilde_i = sum_j G_ij onehot(x^T_j). A target has at most K tokens, and is
kept as those: no array has the vocabulary's width.
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from topd.probe import Probe
from topd.settings import GuidanceSettings


class Targets(flax.struct.PyTreeNode):
    """Of every state i of a window.

    Attributes:
      tokens_BxWxK: the states' text: what stands before state i are the prefix and its first i
        tokens.
      ids_BxWxK: the teacher's tokens, which all states of a window share.
      weights_BxWxKxK: of state i on the teacher's token j; a row sums to 1, or is 0 where there is
        no state. A token that stands there twice counts with both weights.
      negative_entropy_BxWxK: sum over the vocabulary of y log y, in nats.
      totals_BxWxK: how much state i weighs, 1 by default; 0 where there is no state.
    """

    tokens_BxWxK: jax.Array
    ids_BxWxK: jax.Array
    weights_BxWxKxK: jax.Array
    negative_entropy_BxWxK: jax.Array
    totals_BxWxK: jax.Array


def make_targets(probe: Probe, settings: GuidanceSettings) -> Targets:
    """The targets of all windows, guided or not. None has a gradient.

    With `context = "teacher"` state i is that of the teacher's window, and there are as many states
    as it has tokens: row i of the plan is then read there. What a plan gives no mass has no target.
    """
    p = jax.lax.stop_gradient(probe)
    width = p.teacher_BxWxK.shape[-1]
    places = jnp.arange(width)
    teachers = settings.context == "teacher"
    counts = p.teacher_counts_BxW if teachers else p.student_counts_BxW
    if settings.plan == "identity":
        shared = jnp.minimum(p.student_counts_BxW, p.teacher_counts_BxW)
        counts = p.teacher_counts_BxW if teachers else shared
        mass = (places < counts[..., None]) / jnp.maximum(counts, 1)[..., None]
        plan = mass[..., None] * jnp.eye(width)
    else:
        plan = p.plan_BxWxKxK
    state = (places < counts[..., None]) & p.starts.valid_BxW[..., None]
    row = jnp.sum(plan, axis=-1)
    there = state & (row > 0)
    weights = jnp.where(there[..., None], plan / jnp.where(row > 0, row, 1.0)[..., None], 0.0)
    if settings.rows == "one":
        totals = there.astype(jnp.float32)
    else:  # of G, or of the window's length times it
        scale = jnp.maximum(counts, 1)[..., None] if settings.rows == "scaled" else 1.0
        totals = jnp.where(there, row * scale, 0.0)
    same = p.teacher_BxWxK[..., :, None] == p.teacher_BxWxK[..., None, :]
    merged = jnp.einsum("bwij,bwjk->bwik", weights, same.astype(jnp.float32))
    log_merged = jnp.log(jnp.where(merged > 0, merged, 1.0))
    return Targets(
        tokens_BxWxK=p.teacher_BxWxK if teachers else p.student_BxWxK,
        ids_BxWxK=p.teacher_BxWxK,
        weights_BxWxKxK=weights,
        negative_entropy_BxWxK=jnp.sum(weights * log_merged, axis=-1),
        totals_BxWxK=totals,
    )
