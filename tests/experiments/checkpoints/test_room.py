"""No room on the disk is said before any work."""

import collections
import shutil

import pytest

from experiments.checkpoints.room import check_room
from experiments.config.sections import CheckpointSettings
from models import LoraConfig, ModelConfig, count

MODEL = ModelConfig("qwen3", 64, 32, 48, 2, 2, 1, 16, qk_norm=True)
SETTINGS = CheckpointSettings(max_to_keep=2, keep_best=True)


def with_free(monkeypatch, free):
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, free))


def test_four_checkpoints_must_fit(tmp_path, monkeypatch):
    needed = 4 * 12 * count(MODEL)
    with_free(monkeypatch, needed)
    check_room(SETTINGS, MODEL, tmp_path / "checkpoints")
    with_free(monkeypatch, needed - 1)
    message = r"room for 4 checkpoints of .* \(checkpoint\.max_to_keep=2, .*or use a --workdir"
    with pytest.raises(OSError, match=message):
        check_room(SETTINGS, MODEL, tmp_path / "checkpoints")
    # Those that are there already need no further room.
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    (tmp_path / "checkpoints" / "1" / "x").write_bytes(b"1")
    check_room(SETTINGS, MODEL, tmp_path / "checkpoints")


def test_of_adapters_the_moments_alone(tmp_path, monkeypatch):
    adapted = MODEL.replace(lora=LoraConfig(2, 4.0, ("q",)))
    adapters = count(adapted) - count(MODEL)
    needed = 4 * 4 * (count(MODEL) + 3 * adapters)
    with_free(monkeypatch, needed)
    check_room(SETTINGS, adapted, tmp_path)
    with_free(monkeypatch, needed - 1)
    with pytest.raises(OSError, match="free"):
        check_room(SETTINGS, adapted, tmp_path)
