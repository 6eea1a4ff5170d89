"""Every config loads, is locked, and has no field that nothing reads."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import json
import re
import sys
from pathlib import Path

import pytest
from ml_collections import ConfigDict

import atesd as atesd_room
import topd as topd_room
from configs import atesd, gkd, grpo, imitkd, motab, opd, opsd, pretrain, rft, sft, skd, topd
from distill.losses.signal import Signal
from distill.train.optimizer import OptimizerSettings
from experiments.config.sections import ProfileSettings, TrackingSettings
from experiments.methods.atesd import ExposureSettings
from experiments.rollouts.own_samples import RolloutSettings
from experiments.train.loop import run
from experiments.workdir.workdir import read_log
from grpo.policy_gradient import GrpoSettings
from motab import MotabSettings

from .. import atesd_runs

ROOT = Path(__file__).resolve().parents[3]
# Whoever adds a config adds its tests: all files of `configs` with a `get_config`.
CONFIGS = [
    importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for path in sorted((ROOT / "configs").rglob("*.py"))
    if "def get_config" in path.read_text()
]
# Sections that become one of these are read whole; what counts is that their fields are, afterwards.
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
# What acts under another value of some field, given here, than any of the runs below has; tests of the rooms
# show that it does.
WAITING = {
    "ControllerSettings.schedule": "controller.policy: schedule",
    "GuidanceSettings.cap_share": "guidance.objective: cap_low, cap_high",
    "LossSettings.clip_at": "loss.clip: summand, token",
    "MotabSettings.jsd_beta": "motab.safe_loss: jsd",
    "OptimizerSettings.micro_batches": "read from the config, without the settings",
    "Signal.estimator": "signal.support: sampled",
    "Signal.form": "signal.support: sampled",
    "TeacherSettings.probe_exposure": "controller.reward_loss: probe",
    "TrackingSettings.name": "tracking.wandb: offline, online",
    "TrackingSettings.project": "tracking.wandb: offline, online",
}
# A settings object that reads its own field in order to check, compare or print it proves nothing.
_FORMAL = {"__init__", "__post_init__", "__hash__", "__eq__", "__repr__"}

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


@pytest.mark.parametrize(
    ("module", "arg", "idle"),
    [
        (motab, "smoke", {"synthesis.sync_every"}),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
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
            ]
        ),
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
    paths = {}

    def name_all(node: ConfigDict, prefix: str = "") -> None:
        paths[id(node)] = prefix
        for name, value in node.items():
            if isinstance(value, ConfigDict):
                name_all(value, f"{prefix}{name}.")

    name_all(config)
    read = set()
    plain = ConfigDict.__getitem__

    def recording(self, key):
        read.add(paths.get(id(self), "?") + str(key))
        return plain(self, key)

    # Writing config.json reads every field and proves nothing.
    snapshot = config.to_dict()
    monkeypatch.setattr(ConfigDict, "to_dict", lambda self: _find(snapshot, paths[id(self)]))
    monkeypatch.setattr(ConfigDict, "__getitem__", recording)
    run(config, tmp_path)
    monkeypatch.undo()
    unread = leaves(config) - read
    assert unread == idle
    settings_read["runs"].add((module, arg))
    logged = {name for r in read_log(tmp_path / "metrics.jsonl") for name in r}
    unexplained = logged - explained_metrics()
    assert not unexplained, f"docs/metrics.md says nothing of {sorted(unexplained)}"


@pytest.fixture(scope="module")
def settings_read():
    """What is read of the settings' fields while they are in use: names by class."""
    found: dict = {cls: set() for cls in SETTINGS} | {"runs": set()}
    with pytest.MonkeyPatch.context() as patch:
        for cls in SETTINGS:
            fields = {f.name for f in dataclasses.fields(cls)}

            def recording(self, name, cls=cls, fields=fields):
                if name in fields:
                    reader = sys._getframe(1)
                    own = reader.f_code.co_name in _FORMAL and reader.f_locals.get("self") is self
                    if not own:
                        found[cls].add(name)
                return object.__getattribute__(self, name)

            patch.setattr(cls, "__getattribute__", recording, raising=False)
        yield found


@pytest.mark.slow
def test_every_field_of_the_settings_is_used(settings_read):
    """After the runs above, in which every method has been through its loop."""
    if len(settings_read["runs"]) < 13:
        pytest.skip("looks back at all of the runs above")
    unused = {
        f"{cls.__name__}.{field.name}"
        for cls in SETTINGS
        for field in dataclasses.fields(cls)
        if field.name not in settings_read[cls]
    }
    assert unused == set(WAITING)


def explained_metrics() -> set[str]:
    """Names in backquotes on the page that explains metrics; `exposure_0` counts as `exposure_G`."""
    page = ROOT / "docs" / "metrics.md"
    return set(re.findall(r"`([a-z_0-9@]+)`", page.read_text()))


def _find(tree: dict, path: str) -> dict:
    for name in path.split(".")[:-1]:
        tree = tree[name]
    return copy.deepcopy(tree)
