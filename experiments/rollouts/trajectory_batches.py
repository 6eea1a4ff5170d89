"""Batches of trajectories that synthesis wrote, as an endless checkpointable stream."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import grain
import numpy as np

from distill.train.packing import Segment, first_fit_decreasing, pack_segments
from experiments.config.tree import WritingConfig
from experiments.rollouts.recipe import Recipe
from experiments.rollouts.synthesis import check_header, header_of, read_line
from experiments.rollouts.teacher_scores import KeptScores


class _Rows:
    """Random access to the trajectories of a file, those that train nothing left out.

    They come in the order of their samples, whatever order they were written in.
    """

    def __init__(self, path: Path):
        self._path = path
        self.total = self.timed_out = 0
        found: list[tuple[int, int, int]] = []
        with path.open("rb") as file:
            offset = len(file.readline())
            for number, line in enumerate(file, 2):
                try:
                    record = read_line(line)
                except ValueError as error:
                    raise ValueError(
                        f"{path}, line {number}: {error}. Remove the line; synthesising to the "
                        "same file again writes the trajectory anew."
                    ) from None
                if any(record["likelihood_weights"]) or any(record["divergence_weights"]):
                    found.append((record["sample_id"], offset, len(record["token_ids"])))
                self.total += 1
                self.timed_out += bool(record.get("timed_out"))
                offset += len(line)
        found.sort()
        for (sample_id, _, _), (after, _, _) in itertools.pairwise(found):
            if sample_id == after:
                raise ValueError(
                    f"{path} holds the trajectory with sample_id {sample_id} more than once. "
                    "Remove all lines of it but one."
                )
        self._ids = [sample_id for sample_id, _, _ in found]
        self._offsets = [offset for _, offset, _ in found]
        self.lengths = [length for _, _, length in found]  # in tokens
        if not self._offsets:
            raise ValueError(f"{path} holds no trajectory that trains anything.")

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> dict[str, Any]:
        with self._path.open("rb") as file:
            file.seek(self._offsets[index])
            line = file.readline()
        try:
            record = read_line(line)
        except ValueError as error:
            raise ValueError(f"{self._path} was changed while it was in use: {error}.") from None
        if record["sample_id"] != self._ids[index]:
            raise ValueError(f"{self._path} was changed while it was in use.")
        return record


class _Packs:
    """Random access to the trajectories of a packed row, with kept teacher scores, if any."""

    def __init__(self, rows: _Rows, members: list[list[int]], scores: KeptScores | None):
        self._rows, self._members, self._scores = rows, members, scores

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, index: int) -> list[dict[str, Any]]:
        members = self._members[index]
        if self._scores is None:
            return [self._rows[i] for i in members]
        return [{**self._rows[i], "teacher_scores": self._scores[i]} for i in members]


class TrajectoryBatches:
    """Shuffled epochs over a file of trajectories, as an endless checkpointable stream.

    With `synthesis.pack_to` a row holds as many trajectories as fit into that many tokens, the same
    ones in every epoch; else one. `batch_size` counts rows.

    Attributes:
      kept: share of the file's trajectories that train something; the others are left out.
      timed_out: how many of the file's answers could not be compared in time, and count as wrong.
      used: share of the rows' positions that hold a token.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it was written with another prompt or other settings, or `pack_to` is too small;
        or teacher scores cannot be kept, see `KeptScores`.
    """

    def __init__(self, config: WritingConfig, recipe: Recipe, path: Path):
        if not path.is_file():
            raise FileNotFoundError(f"synthesis.file={path}: there is no such file.")
        with path.open("rb") as file:
            header = header_of(config)
            # Where the student's own text is kept, another student's would not do.
            own = ("student",) if recipe.signal and recipe.signal.support == "sampled" else ()
            check_header(file.readline(), header, path, ("prompt", config.section, *own))
        rows = _Rows(path)
        self.kept, self.timed_out = len(rows) / rows.total, rows.timed_out
        self._width = config.prompt.max_tokens + config.max_total
        members = [[i] for i in range(len(rows))]
        if pack_to := config.synthesis.pack_to:
            if pack_to < max(rows.lengths):
                raise ValueError(
                    f"synthesis.pack_to={pack_to}, but {path} holds a trajectory of "
                    f"{max(rows.lengths)} tokens. Raise it, or set 0 for one trajectory a row."
                )
            self._width = pack_to
            members = first_fit_decreasing(rows.lengths, pack_to)
        self.used = sum(rows.lengths) / (self._width * len(members))
        scores = None
        if config.synthesis.cache_teacher:
            longest = config.prompt.max_tokens + config.max_total
            scores = KeptScores(
                config, recipe, path, rows.lengths, lambda i: _segment(rows[i]), longest
            )
        source: Any = _Packs(rows, members, scores)
        draws = grain.MapDataset.source(source).seed(config.seed).shuffle().repeat()
        batches = draws.batch(config.batch_size, batch_fn=self._collate)
        self._iterator = iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=1)))

    def __next__(self) -> dict[str, Any]:
        return next(self._iterator)

    def get_state(self) -> dict[str, Any]:
        """Where the stream stands."""
        return self._iterator.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes back to where an iterator over the same file stood."""
        self._iterator.set_state(state)

    def _collate(self, packs: Any) -> dict[str, Any]:
        trajectories = pack_segments(
            [[_segment(record) for record in pack] for pack in packs], self._width
        )
        return {"trajectories": trajectories, "records": [r for pack in packs for r in pack]}


def _segment(record: dict[str, Any]) -> Segment:
    return Segment(
        tokens=np.asarray(record["token_ids"], np.int32),
        source=np.asarray(record["source"], np.int32),
        likelihood_weights=np.asarray(record["likelihood_weights"], np.float32),
        divergence_weights=np.asarray(record["divergence_weights"], np.float32),
        teacher_scores=record.get("teacher_scores"),
    )
