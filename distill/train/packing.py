"""Several trajectories in one row, so that few positions are padding.

Every trajectory is a segment of its own: it sees itself alone, and its positions start anew. Losses
and gradients are those of the rows apart. All of this is host work on NumPy arrays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from distill.trajectories import TeacherScores, Trajectories

_ARRAYS = ("tokens", "source", "likelihood_weights", "divergence_weights")


@dataclasses.dataclass(frozen=True)
class Segment:
    """One trajectory without padding: arrays [T], and kept teacher scores where there are any.

    Its first token is a prompt's: with no weight, so that nothing is predicted across a border.
    """

    tokens: np.ndarray
    source: np.ndarray
    likelihood_weights: np.ndarray
    divergence_weights: np.ndarray
    teacher_scores: TeacherScores | None = None

    def __post_init__(self):
        if len(self.tokens) and (self.likelihood_weights[0] or self.divergence_weights[0]):
            raise ValueError(
                "A trajectory's first token has a weight, but nothing comes before it that could "
                "predict it: give every trajectory a prompt."
            )


def first_fit_decreasing(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Distributes items over rows: the longest first, each into the first row with room for it.

    A tree of the rows' room finds that row in logarithmic time. Items of one length keep their
    order.

    Args:
      lengths: in tokens.
      width: room of a row, in tokens.

    Returns:
      Indices into `lengths`, by row.

    Raises:
      ValueError: an item that fits no row.

    Example:
      >>> first_fit_decreasing([7, 3, 5, 4], width=10)
      [[0, 1], [2, 3]]
    """
    sizes = np.asarray(lengths, np.int64)
    if len(sizes) and sizes.max() > width:
        longest = int(sizes.argmax())
        raise ValueError(
            f"Trajectory {longest} has {sizes[longest]} tokens and does not fit into rows of "
            f"{width}."
        )
    leaves = 1 << max(0, len(sizes) - 1).bit_length()
    room = np.full(2 * leaves, width, np.int64)  # node i has the children 2 i and 2 i + 1
    rows: list[list[int]] = []
    for item in np.argsort(-sizes, kind="stable"):
        node = 1
        while node < leaves:
            node = 2 * node + (room[2 * node] < sizes[item])
        row = node - leaves
        if row == len(rows):
            rows.append([])
        rows[row].append(int(item))
        room[node] -= sizes[item]
        while node > 1:
            node //= 2
            room[node] = max(room[2 * node], room[2 * node + 1])
    return rows


def pack_segments(rows: Sequence[Sequence[Segment]], width: int) -> Trajectories:
    """Lays segments side by side, row by row: host arrays [R, width], right-padded.

    Raises:
      ValueError: a row's segments have more than `width` tokens.
    """
    shape = (len(rows), width)
    positions, segment_ids = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for r, segments in enumerate(rows):
        lengths = [len(segment.tokens) for segment in segments]
        if sum(lengths) > width:
            raise ValueError(f"Row {r} holds more than {width} tokens; make rows wider.")
        numbers = np.repeat(np.arange(len(lengths)) + 1, lengths)
        segment_ids[r, : len(numbers)] = numbers
        # Padding counts on behind the last token, as behind a single trajectory.
        before = [n for n in lengths if n][:-1]
        counted = [np.arange(n) for n in (*before, width - sum(before))]
        positions[r] = np.concatenate(counted)

    def laid_out(*pieces: np.ndarray) -> np.ndarray:
        """One array of every segment, in the rows' order."""
        out = np.zeros((*shape, *pieces[0].shape[1:]), pieces[0].dtype)
        out[segment_ids != 0] = np.concatenate(pieces)
        return out

    everything = [segment for segments in rows for segment in segments]
    make: Any = Trajectories  # of host arrays
    return make(
        positions_BxT=positions,
        segment_ids_BxT=segment_ids,
        **{f"{name}_BxT": laid_out(*(getattr(x, name) for x in everything)) for name in _ARRAYS},
        teacher_scores=jax.tree.map(laid_out, *(x.teacher_scores for x in everything)),
    )


def pack(trajectories: Trajectories, width: int) -> Trajectories:
    """Packs rows of one trajectory each into as few rows of `width` as first fit decreasing finds.

    Args:
      trajectories: [B, T], on the host or the devices.

    Returns:
      Host arrays [R, width]. The number of rows R depends on the lengths: pad it where shapes must
      not change.

    Raises:
      ValueError: a trajectory longer than `width`.
    """
    t = jax.device_get(trajectories)
    lengths = np.sum(t.segment_ids_BxT != 0, axis=1)
    rows = first_fit_decreasing(lengths, width)

    def segment(b: int) -> Segment:
        own = jax.tree.map(lambda x: x[b, : lengths[b]], t)
        arrays = {name: getattr(own, f"{name}_BxT") for name in _ARRAYS}
        return Segment(**arrays, teacher_scores=own.teacher_scores)

    return pack_segments([[segment(b) for b in row] for row in rows], width)
