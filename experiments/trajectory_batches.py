"""Batches of trajectories that `experiments.synthesis` wrote, as an endless checkpointable stream."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grain
import numpy as np

from distill.trajectories import Source, Trajectories
from experiments.recipe import Recipe
from experiments.synthesis import check_header, header_of


class _Rows:
    """Random access to the trajectories of a file, those that train nothing left out."""

    def __init__(self, path: Path):
        self._path = path
        self._offsets = []
        self.total = 0
        with path.open("rb") as file:
            offset = len(file.readline())
            for number, line in enumerate(file, 2):
                try:
                    record = json.loads(line)
                except ValueError:
                    raise ValueError(
                        f"{path}, line {number}: not valid JSON. Remove the line."
                    ) from None
                if any(record["likelihood_weights"]) or any(record["divergence_weights"]):
                    self._offsets.append(offset)
                self.total += 1
                offset += len(line)
        if not self._offsets:
            raise ValueError(f"{path} holds no trajectory that trains anything.")

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> dict[str, Any]:
        with self._path.open("rb") as file:
            file.seek(self._offsets[index])
            return json.loads(file.readline())


class TrajectoryBatches:
    """Shuffled epochs over a file of trajectories, as an endless checkpointable stream.

    Attributes:
      kept: share of the file's trajectories that train something; the others are left out.
    """

    def __init__(self, config: Any, recipe: Recipe, path: Path):
        if not path.is_file():
            raise FileNotFoundError(f"synthesis.file={path}: there is no such file.")
        with path.open("rb") as file:
            header = header_of(config, recipe)
            check_header(file.readline(), header, path, ("prompt", recipe.section))
        self._width = config.prompt.max_tokens + recipe.max_total
        rows = _Rows(path)
        self.kept = len(rows) / rows.total
        draws = grain.MapDataset.source(rows).seed(config.seed).shuffle().repeat()
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

    def _collate(self, records: Any) -> dict[str, Any]:
        def rows(name: str, dtype: Any) -> np.ndarray:
            out = np.zeros((len(records), self._width), dtype)
            for row, record in zip(out, records, strict=True):
                row[: len(record[name])] = record[name]
            return out

        source = rows("source", np.int32)
        positions = np.broadcast_to(np.arange(self._width, dtype=np.int32), source.shape)
        make: Any = Trajectories  # of host arrays, for now
        trajectories = make(
            tokens_BxT=rows("token_ids", np.int32),
            source_BxT=source,
            likelihood_weights_BxT=rows("likelihood_weights", np.float32),
            divergence_weights_BxT=rows("divergence_weights", np.float32),
            positions_BxT=positions,
            segment_ids_BxT=(source != Source.PADDING).astype(np.int32),
        )
        return {"trajectories": trajectories, "records": list(records)}
