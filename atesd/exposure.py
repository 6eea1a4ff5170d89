"""How much of a reference a teacher sees: contexts cut on the device, in static shapes.

ATESD (arXiv 2605.11458), Eqs. 2 and 5. Dimensions: head H, reasoning R, answer A and tail L, each
a bucketed width; N = R + 1 possible counts of shown tokens; C = H + R + A + L.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from atesd.references import ReferenceTokens
from distill.rollouts.assembly import assemble
from distill.trajectories import Source, Trajectories
from models.checks import Count, check
from models.decoding.decode import put

# The product a n in float32 lies up to 2^-23 of itself below the one that is meant, and .3 * 10
# must be 3. This adds twice as much: nothing that a reference of a usual length could notice.
_ROUNDING = np.float32(1 + 2**-22)


class References(flax.struct.PyTreeNode):
    """A batch of references, right-padded with zeros; int32, flags bool.

    Attributes:
      head_BxH, reasoning_BxR, answer_BxA, tail_BxL: token ids, as in `ReferenceTokens`.
      head_lengths_B, reasoning_lengths_B, answer_lengths_B, tail_lengths_B: in tokens.
      cuts_BxN: allowed cut for every count of tokens; rows go on with their last one.
      had_answer_B, empty_B, overlong_B: as in `ReferenceTokens`.
    """

    head_BxH: jax.Array | np.ndarray
    head_lengths_B: jax.Array | np.ndarray
    reasoning_BxR: jax.Array | np.ndarray
    reasoning_lengths_B: jax.Array | np.ndarray
    cuts_BxN: jax.Array | np.ndarray
    answer_BxA: jax.Array | np.ndarray
    answer_lengths_B: jax.Array | np.ndarray
    tail_BxL: jax.Array | np.ndarray
    tail_lengths_B: jax.Array | np.ndarray
    had_answer_B: jax.Array | np.ndarray
    empty_B: jax.Array | np.ndarray
    overlong_B: jax.Array | np.ndarray


@dataclasses.dataclass(frozen=True)
class ReferenceWidths:
    """The most tokens that each piece of a teacher's context may have."""

    head: Count
    reasoning: Count
    answer: Count
    tail: Count

    def __post_init__(self):
        check(self, "widths")


def bucket(width: int, maximum: int) -> int:
    """The smallest power of two from 16 up that holds `width`, and `maximum` if that is less."""
    return min(max(16, 1 << (width - 1).bit_length()), maximum)


def pack_references(rows: Sequence[ReferenceTokens], widths: ReferenceWidths) -> References:
    """Stacks references into NumPy arrays whose widths are buckets.

    Every piece takes the bucket of its longest row, so that batches share a bounded number of
    shapes: at most the product over the pieces of log2(maximum / 16) + 1.

    Raises:
      ValueError: no rows, or a piece that is longer than its maximum.
    """
    if not rows:
        raise ValueError("There are no references to pack.")

    def piece(name: str) -> tuple[np.ndarray, np.ndarray]:
        ids = [getattr(row, name) for row in rows]
        longest = max(range(len(rows)), key=lambda b: len(ids[b]))
        width, maximum = len(ids[longest]), getattr(widths, name)
        if width > maximum:
            raise ValueError(
                f"The {name} of reference {longest} of the batch has {width} tokens, more than "
                f"widths.{name}={maximum} (in a config exposure.max_{name}). Raise it, or "
                "leave the example out."
            )
        return _pad(ids, bucket(width, maximum))

    head, reasoning = piece("head"), piece("reasoning")
    tokens, lengths = reasoning
    places = np.minimum(np.arange(tokens.shape[1] + 1), lengths[:, None])
    cuts, _ = _pad([row.cuts for row in rows], tokens.shape[1] + 1)
    cuts = np.take_along_axis(cuts, places, axis=1)
    flags = np.array([(row.had_answer, row.empty, row.overlong) for row in rows]).T
    # In the order of the fields.
    return References(*head, *reasoning, cuts, *piece("answer"), *piece("tail"), *flags)


def _pad(rows: Sequence[Sequence[int]], width: int) -> tuple[np.ndarray, np.ndarray]:
    tokens = np.zeros((len(rows), width), np.int32)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    return tokens, np.array([len(ids) for ids in rows], np.int32)


def shown_tokens(references: References, exposure: jax.Array | float) -> jax.Array:
    """Reasoning tokens that are shown [B]: the largest allowed cut <= floor(a |reasoning|) (Eq. 2).

    The floor is taken in float32 and is that of the exact product for every a = k/100 and up to
    20,000 tokens; in general a product within 5e-7 of itself below a whole number counts as that
    number. a = 1 shows all tokens, of any number.

    Args:
      exposure: a, [] or [B]; what lies outside [0, 1] counts as its nearer end.
    """
    lengths = jnp.asarray(references.reasoning_lengths_B)
    a = jnp.clip(jnp.asarray(exposure, jnp.float32), 0.0, 1.0)
    count = jnp.floor(a * lengths.astype(jnp.float32) * _ROUNDING).astype(jnp.int32)
    count = jnp.where(a >= 1, lengths, jnp.clip(count, 0, lengths))
    return jnp.take_along_axis(jnp.asarray(references.cuts_BxN), count[:, None], axis=1)[:, 0]


def expose(references: References, exposure: jax.Array | float) -> tuple[jax.Array, jax.Array]:
    """The teacher's contexts [x ; truncate(y*, a) ; tau] (Eq. 5), joined from token ids.

    Args:
      exposure: as in `shown_tokens`.

    Returns:
      Contexts [B, C], right-padded with zeros, and their lengths [B].
    """
    r = references
    pieces = (
        (r.head_BxH, r.head_lengths_B),
        (r.reasoning_BxR, shown_tokens(r, exposure)),
        (r.answer_BxA, r.answer_lengths_B),
        (r.tail_BxL, r.tail_lengths_B),
    )
    empty_B = jnp.zeros(r.head_BxH.shape[0], jnp.int32)
    width = sum(tokens.shape[1] for tokens, _ in pieces)
    return _append(jnp.zeros((*empty_B.shape, width), jnp.int32), empty_B, *pieces)


def _append(text_BxN: jax.Array, lengths_B: jax.Array, *pieces: Any) -> Any:
    """Text and its lengths with pieces behind it, each tokens [B, ...] and their counts [B]."""
    for tokens, counts in pieces:
        text_BxN = put(text_BxN, jnp.asarray(tokens), lengths_B, jnp.asarray(counts))
        lengths_B = lengths_B + counts
    return text_BxN, lengths_B


def reference_responses(
    prompts_BxP: jax.Array | np.ndarray,
    prompt_lengths_B: jax.Array | np.ndarray,
    references: References,
    eos_id: int,
) -> Trajectories:
    """Rows [prompt ; whole reasoning ; answer ; EOS], whose response has likelihood weight 1.

    Behind the students' prompts they give the student's NLL of the reference; behind the contexts
    of `expose`, the exposed teacher's log-probability of it.

    Args:
      prompts_BxP, prompt_lengths_B: prompts or contexts, and their lengths in tokens.
      eos_id: the token that ends a response.

    Returns:
      Trajectories [B, P + R + A + 1]; the response's source is `Source.TEACHER`.
    """
    r = references
    extra = r.reasoning_BxR.shape[1] + r.answer_BxA.shape[1] + 1
    prompts = jnp.pad(jnp.asarray(prompts_BxP, jnp.int32), ((0, 0), (0, extra)))
    starts = jnp.asarray(prompt_lengths_B)
    text, lengths = _append(
        prompts,
        starts,
        (r.reasoning_BxR, r.reasoning_lengths_B),
        (r.answer_BxA, r.answer_lengths_B),
        (jnp.full((prompts.shape[0], 1), eos_id, jnp.int32), jnp.ones_like(starts)),
    )
    writers = jnp.full_like(text, Source.TEACHER)
    return assemble(text, writers, starts, lengths, "likelihood")
