"""How far two windows are apart: entropic optimal transport between embedded tokens.

TOPD (arXiv 2606.00305): D_OT = min over G in Pi(a, b) of <G, C>, C_ij the cost between the
student's i-th and the teacher's j-th token. N pairs of windows of at most K tokens; the solver is
ott-jax's. No result has a gradient.
"""

from __future__ import annotations

import functools

import flax.struct
import jax
import jax.numpy as jnp

from topd.settings import TransportSettings


class Transport(flax.struct.PyTreeNode):
    """A solution.

    Attributes:
      plan_NxKxK: G; rows are the student's tokens and sum to their marginal up to rounding,
        columns, the teacher's, as far as the iterations got.
      distance_N: D_OT = <G, C>, without the entropy; below the exact one by no more than what
        columns lack would cost.
    """

    plan_NxKxK: jax.Array
    distance_N: jax.Array


def cost(
    student_NxKxD: jax.Array, teacher_NxKxD: jax.Array, settings: TransportSettings
) -> jax.Array:
    """C [N, K, K] between embedded tokens, in float32.

    1 - cos lies in [0, 2].
    """
    inputs = jax.lax.stop_gradient((student_NxKxD, teacher_NxKxD))
    s, t = (_unit(x.astype(jnp.float32)) for x in inputs)
    if settings.cost == "cosine":
        # As |s - t|^2 / 2, equal vectors are at 0 exactly.
        costs = 0.5 * _squared_distances(s, t)
    else:
        costs = jnp.sqrt(_squared_distances(s, t))
    if settings.position_penalty:
        places = jnp.arange(s.shape[1], dtype=jnp.float32)
        displaced = jnp.abs(places[:, None] - places) / s.shape[1]
        costs = costs + settings.position_penalty * displaced
    return costs


def _unit(x: jax.Array) -> jax.Array:
    norm = jnp.linalg.norm(x, axis=-1, keepdims=True)
    return x / jnp.maximum(norm, jnp.finfo(x.dtype).tiny)


def _squared_distances(s_NxKxD: jax.Array, t_NxKxD: jax.Array) -> jax.Array:
    """|s_i - t_j|^2 [N, K, K], one student's token at a time: no array is [N, K, K, D]."""

    def row(s_NxD: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(s_NxD[:, None] - t_NxKxD), axis=-1)

    return jnp.moveaxis(jax.lax.map(row, jnp.moveaxis(s_NxKxD, 1, 0)), 0, 1)


def marginal(counts_N: jax.Array, width: int, settings: TransportSettings) -> jax.Array:
    """Weights [N, K] of a window's first `counts` tokens, which sum to 1.

    An empty window counts as a whole one, so that all numbers are finite; leave it out.
    """
    counts = jnp.where(counts_N > 0, counts_N, width)[:, None]
    places = jnp.arange(width)
    inside = places < counts
    weights = jnp.where(inside, 1.0, 0.0)
    if settings.marginals == "decaying":
        weights = jnp.where(inside, (counts - places).astype(jnp.float32), 0.0)
    return weights / jnp.sum(weights, axis=1, keepdims=True)


def solve(
    costs_NxKxK: jax.Array, rows_NxK: jax.Array, columns_NxK: jax.Array, settings: TransportSettings
) -> Transport:
    """The entropic plan between marginals of mass 1; entries of mass 0 get nothing."""
    # A second to import, which other methods need not wait for.
    from ott.geometry.geometry import Geometry
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import Sinkhorn

    n = settings.iterations
    # As many steps as said, whatever the error: a `scan`, which is measured once, at its end.
    sinkhorn = Sinkhorn(
        lse_mode=True,
        threshold=0.0,
        inner_iterations=n,
        min_iterations=n,
        max_iterations=n,
        implicit_diff=None,
    )

    def one(costs: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
        geometry = Geometry(cost_matrix=costs, epsilon=settings.epsilon)
        return sinkhorn(LinearProblem(geometry, a=a, b=b)).matrix

    costs, a, b = jax.lax.stop_gradient((costs_NxKxK, rows_NxK, columns_NxK))
    plan = jax.vmap(one)(costs, a, b)
    return Transport(plan, jnp.sum(plan * costs, axis=(1, 2)))


def compare(
    student_NxKxD: jax.Array,
    teacher_NxKxD: jax.Array,
    student_counts_N: jax.Array,
    teacher_counts_N: jax.Array,
    settings: TransportSettings,
) -> Transport:
    """Plan and distance of embedded windows; those shorter than K end with their counts."""
    width = student_NxKxD.shape[1]
    of = functools.partial(marginal, width=width, settings=settings)
    costs = cost(student_NxKxD, teacher_NxKxD, settings)
    return solve(costs, of(student_counts_N), of(teacher_counts_N), settings)
