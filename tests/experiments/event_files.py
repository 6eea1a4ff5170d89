"""What TensorBoard's event files and W&B's offline files hold, read without either's reader."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path

_BLOCK, _HEADER = 32768, 7


def tensorboard_points(
    directory: Path,
) -> tuple[list[tuple[str, int, float]], set[tuple[str, int]]]:
    """Scalars as (name, step, value), of all files; and (name, step) of texts."""
    from tensorboardX.proto.event_pb2 import Event

    points, texts = [], set()
    for file in sorted(directory.glob("events.out.tfevents.*")):
        content, at = file.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            event = Event.FromString(content[at + 12 : at + 12 + length])
            at += 16 + length
            for value in event.summary.value:
                if value.WhichOneof("value") == "simple_value":
                    points.append((value.tag, event.step, value.simple_value))
                else:
                    texts.add((value.tag.removesuffix("/text_summary"), event.step))
    return points, texts


def wandb_points(directory: Path) -> tuple[list[tuple[str, int, float]], list[int]]:
    """Scalars as (name, step, value), of all offline runs; and the steps of pages of trajectories."""
    from wandb.proto.wandb_internal_pb2 import Record

    points, pages = [], []
    for file in sorted(directory.glob("offline-run-*/*.wandb")):
        for content in _leveldb_records(file.read_bytes()):
            record = Record.FromString(content)
            if record.WhichOneof("record_type") != "history":
                continue
            items = {
                ".".join(i.nested_key) or i.key: json.loads(i.value_json)
                for i in record.history.item
            }
            step = items["_step"]
            for name, value in items.items():
                if name == "trajectories._type":
                    pages.append(step)
                elif not name.startswith(("_", "trajectories")):
                    points.append((name, step, float(value)))
    assert all(math.isfinite(value) for _, _, value in points)
    return points, pages


def _leveldb_records(content: bytes) -> Iterator[bytes]:
    """Records of a log in LevelDB's format, in blocks of 32 KiB behind a header of 7 bytes."""
    at, parts = _HEADER, b""
    while at + _HEADER <= len(content):
        left = _BLOCK - at % _BLOCK
        if left < _HEADER:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        parts += content[at + _HEADER : at + _HEADER + length]
        at += _HEADER + length
        if kind in (1, 4):  # full, last
            yield parts
            parts = b""
