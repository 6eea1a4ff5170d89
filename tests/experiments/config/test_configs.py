"""Every config loads, is locked, and has no field that nothing reads."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from ml_collections import ConfigDict

import atesd as atesd_room
import topd as topd_room
from configs import atesd, gkd, grpo, imitkd, motab, opd, opsd, pretrain, rft, sft, skd, topd
from distill.losses.signal import Signal
from distill.train.optimizer import OptimizerSettings
from experiments.config.method_sections import ExposureSettings, RolloutSettings
from experiments.config.read import read_config
from experiments.config.reading import field_types, section_type
from experiments.config.sections import ProfileSettings, TrackingSettings
from experiments.config.tree import METHODS
from experiments.train.loop import run
from experiments.workdir.workdir import read_log
from grpo.policy_gradient import GrpoSettings
from models.config import ModelConfig
from motab import MotabSettings

from .. import atesd_runs

ROOT = Path(__file__).resolve().parents[3]
# Whoever adds a config adds its tests: all files of `configs` with a `get_config`.
CONFIGS = [
    importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for path in sorted((ROOT / "configs").rglob("*.py"))
    if "def get_config" in path.read_text()
]
# Sections of these classes count as read in a run; that their fields are is seen over all runs.
SETTINGS = (
    MotabSettings,
    OptimizerSettings,
    GrpoSettings,
    Signal,
    atesd_room.ControllerSettings,
    atesd_room.LossSettings,
    atesd_room.TeacherSettings,
    topd_room.WindowSettings,
    topd_room.TransportSettings,
    topd_room.GuidanceSettings,
    ExposureSettings,
    RolloutSettings,
    TrackingSettings,
    ProfileSettings,
)
# What acts under another value of some field, given here, than any of the runs below has; tests of
# the rooms show that it does.
WAITING = {
    "ControllerSettings.schedule": "controller.policy: schedule",
    "GuidanceSettings.cap_share": "guidance.objective: cap_low, cap_high",
    "LossSettings.clip_at": "loss.clip: summand, token",
    "MotabSettings.jsd_beta": "motab.safe_loss: jsd",
    "Signal.estimator": "signal.support: sampled",
    "Signal.form": "signal.support: sampled",
    "TeacherSettings.probe_exposure": "controller.reward_loss: probe",
    "TrackingSettings.name": "tracking.wandb: offline, online",
    "TrackingSettings.project": "tracking.wandb: offline, online",
}
# A settings object that reads its own field in order to check, compare or print it proves nothing,
# nor do files that check; what copies a section proves something where it hands it to a reader.
_FORMAL = {"__init__", "__post_init__", "__hash__", "__eq__", "__repr__", "lengths", "read"}
_CHECKING = ("config/checks.py", "config/reading.py", "config/read.py", "models/checks.py")
_HANDED_ON = {"spec", "table", "sizes"}

VARIANTS = [
    (module, arg)
    for module in CONFIGS
    for arg in (pretrain.ROLES if module is pretrain else module.ARGUMENTS)
]


def leaves(config: ConfigDict, prefix: str = "") -> set[str]:
    out = set()
    for name, value in config.items():
        path = f"{prefix}{name}"
        out |= leaves(value, f"{path}.") if isinstance(value, ConfigDict) else {path}
    return out


@pytest.mark.parametrize(("module", "arg"), VARIANTS)
def test_a_config_is_data_and_refuses_unknown_fields(module, arg):
    config = module.get_config(arg)
    assert config.to_dict() == importlib.reload(module).get_config(arg).to_dict()
    config.lock()
    with pytest.raises(AttributeError, match="stepz"):
        config.stepz = 3
    with pytest.raises(TypeError):
        config.batch_size = "many"


@pytest.mark.parametrize("module", CONFIGS)
def test_an_argument_that_a_config_s_own_text_names_is_one_that_it_takes(module):
    file = module.__name__.replace(".", "/")
    for arg in re.findall(rf"{file}\.py:([\w.-]+)", module.__doc__):
        assert json.loads(module.get_config(arg).to_json_best_effort())


@pytest.mark.parametrize("module", CONFIGS)
def test_an_unknown_variant_is_refused(module):
    with pytest.raises(ValueError, match="nonsense"):
        module.get_config("nonsense")


def shorten(config: ConfigDict) -> ConfigDict:
    config.steps = 2
    config.batch_size = 4
    config.checkpoint.every = 1
    config.evaluation.max_tokens = 24
    config.evaluation.batch_size = 8
    for name in ("validation", "test", "long"):
        if name in config.data:
            config.data[name].size = 8
    if "motab" in config:
        config.motab.max_total = 64
        config.motab.max_correction = 24
        config.synthesis.trajectories = 8
        config.synthesis.sync_every = 1
    if "grpo" in config:
        config.synthesis.trajectories_per_prompt = 2
        config.grpo.max_total = 64
        config.samples.every = 1
    if "rollout" in config:
        config.samples.every = 1
        config.rollout.max_total = 64
        if config.synthesis.mode == "offline":
            config.synthesis.trajectories = 16
    return config


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "arg", "idle"),
    [
        (motab, "smoke", {"synthesis.sync_every"}),
        (
            motab,
            "online",
            # What the other mode of synthesis reads.
            {
                "synthesis.trajectories",
                "synthesis.file",
                "synthesis.pack_to",
                "synthesis.cache_teacher",
            },
        ),
        (pretrain, "student", {"samples.rows"}),
        (sft, "", set()),
        (rft, "", set()),
        (imitkd, "", {"synthesis.sync_every"}),
        (skd, "0.8", {"synthesis.sync_every"}),
        (opd, "topk_union", set()),
        (gkd, "", set()),
        (grpo, "token", set()),
        (topd, "smoke", set()),
        (atesd, "smoke", set()),
        (opsd, "ema-smoke", set()),
    ],
)
def test_every_field_is_read(module, arg, idle, tmp_path, monkeypatch, settings_read):
    if module in (atesd, opsd):
        config = atesd_runs.small(arg, module)
        config.steps, config.checkpoint.every = 3, 3
        for name in ("test", "long"):  # problems of one step, whose prompts are short
            config.data[name].update(
                {"name": "chain/test", "size": 4, "min_steps": 1, "max_steps": 1}
            )
        config.samples.every = 1
    else:
        config = shorten(module.get_config(arg))
    if arg == "smoke":
        config.samples.every = 1
    if module is sft:
        config.student.lora.rank = 2
    elif module is not pretrain:  # without adapters
        idle = idle | {"student.lora.alpha", "student.lora.targets"}
    tree, read = settings_read["record"](monkeypatch)
    run(config, tmp_path)
    unread = leaves(config) - read(tree)
    assert unread == idle
    settings_read["runs"].add((module, arg))
    logged = {name for r in read_log(tmp_path / "metrics.jsonl") for name in r}
    unexplained = logged - explained_metrics()
    assert not unexplained, f"docs/metrics.md says nothing of {sorted(unexplained)}"


def sections(kind: type) -> Iterator[type]:
    """A class of the tree, and those of the sections in it."""
    yield kind
    for hint in field_types(kind).values():
        if (section := section_type(hint, {})) is not None:
            yield from sections(section)


def nodes(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every section of a tree, with its path and a dot."""
    yield path, tree
    for name in field_types(type(tree)):
        value = getattr(tree, name)
        if dataclasses.is_dataclass(value):
            yield from nodes(value, f"{path}{name}.")


def proves_nothing(reader: FrameType, node: Any) -> bool:
    """Whether a frame reads a field in order to check, compare, copy or print it."""
    while reader.f_code.co_name.startswith("<") and reader.f_back is not None:
        reader = reader.f_back  # a comprehension's
    inside: FrameType | None = reader
    if reader.f_code.co_filename == dataclasses.__file__:
        while inside is not None and inside.f_code.co_filename == dataclasses.__file__:
            inside = inside.f_back
        return inside is None or inside.f_code.co_name not in _HANDED_ON
    if reader.f_code.co_name in _FORMAL:
        return reader.f_locals.get("self") is node
    return reader.f_code.co_filename.endswith(_CHECKING) or reader.f_code.co_name == "nodes"


@pytest.fixture(scope="module")
def settings_read():
    """What is read of the tree's fields while they are in use.

    `used` has names by class. `record(monkeypatch)` looks at the next run: it gives a list that
    gets the run's tree, and what makes that the paths which were read.
    """
    used: dict[type, set[str]] = {cls: set() for cls in SETTINGS}
    seen: dict[int, set[str]] = {}

    def recorder(cls: type) -> Any:
        fields = set(field_types(cls))

        def recording(self: Any, name: str) -> Any:
            if name in fields and not proves_nothing(sys._getframe(1), self):
                seen.setdefault(id(self), set()).add(name)
                if cls in used:
                    used[cls].add(name)
            return object.__getattribute__(self, name)

        return recording

    def record(monkeypatch: pytest.MonkeyPatch) -> tuple[list, Any]:
        made: list = []

        def remembering(fields: Any) -> Any:
            seen.clear()
            made.append(read_config(fields))
            return made[-1]

        def read(trees: list) -> set[str]:
            (tree,) = trees
            paths = {"method"}  # which class the tree is of
            for path, node in nodes(tree):
                whole = type(node) in (*SETTINGS, ModelConfig)
                names = field_types(type(node)) if whole else seen.get(id(node), ())
                paths |= {f"{path}{name}" for name in names}
            return paths

        monkeypatch.setattr("experiments.train.loop.read_config", remembering)
        return made, read

    with pytest.MonkeyPatch.context() as patch:
        for cls in {cls for kind in METHODS.values() for cls in sections(kind)}:
            patch.setattr(cls, "__getattribute__", recorder(cls), raising=False)
        yield {"used": used, "record": record, "runs": set()}


@pytest.mark.slow
def test_every_field_of_the_settings_is_used(settings_read):
    """After the runs above, in which every method has been through its loop."""
    if len(settings_read["runs"]) < 13:
        pytest.skip("looks back at all of the runs above")
    unused = {
        f"{cls.__name__}.{field.name}"
        for cls in SETTINGS
        for field in dataclasses.fields(cls)
        if field.name not in settings_read["used"][cls]
    }
    assert unused == set(WAITING)


def explained_metrics() -> set[str]:
    """Names in backquotes on the page that explains metrics; `exposure_0` counts as `exposure_G`."""
    page = ROOT / "docs" / "metrics.md"
    return set(re.findall(r"`([a-z_0-9@]+)`", page.read_text()))
