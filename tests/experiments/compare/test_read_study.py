"""A study is read once, into a frozen tree; what is wrong in it is named before any run."""

from __future__ import annotations

import dataclasses
import json

import pytest
from rich.console import Console

from configs.studies import atesd as atesd_study
from configs.studies import motab as motab_study
from configs.studies import topd as topd_study
from experiments.compare.execute import compare
from experiments.compare.settings import read_study

from ..study_runs import FakeTrainer, small_study

QUIET = Console(quiet=True)


def _set(path, value):
    def change(study):
        *groups, last = path.split(".")
        node = study
        for name in groups:
            node = node[name]
        with node.unlocked():
            node[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("references", ("ppo",)), "references: 'ppo' is not an arm"),
        (_set("sweep", ("ppo",)), "sweep: 'ppo'"),
        (_set("selection_seed", 1), "selection_seed=1 is one of the seeds"),
        (_set("seeds", (0, 0)), "seeds="),
        (_set("learning_rates", ()), "learning_rates="),
        (_set("tokens_per_update", -1), "tokens_per_update=-1"),
        (_set("checkpoint", "luckiest"), "checkpoint='luckiest'"),
        (_set("monitr", ("motab",)), r"monitr: there is no such field; .* nearest is monitor"),
        (_set("exposures", ("ppo",)), "exposures: 'ppo' is not an arm"),
        (_set("seeds", (0, -1)), "seeds=-1"),
        (_set("learning_rates", (1e-3, float("nan"))), "learning_rates=nan"),
        (_set("updates", 0), "updates=0"),
        (_set("arms.opd.lable", "x"), r"arms\.opd\.lable: .*nearest is arms\.opd\.label"),
        (_set("checkpoint", "best"), "checkpoint.keep_best"),
        (_set("arms.opd.config", "configs/ppo.py"), "Arm opd .*no such file"),
        (_set("arms.opd.config", "experiments/run.py"), "not a file of configs/"),
        (_set("arms.opd.config", "configs/../tests/conftest.py"), "not a file of configs/"),
        (_set("arms.opd.config", "/etc/profile.py"), "not a file of configs/"),
        (_set("arms.opd.arg", "nonsense"), "Arm opd .*nonsense"),
        (_set("arms.opd.set", {"motab": {"gamma_0": 0.5}}), r"arms\.opd\.set\.motab"),
        (_set("arms.motab.set", {"motab": {"gama_0": 0.5}}), r"arms\.motab\.set\.motab\.gama_0"),
        (_set("arms.motab.set", {"motab": 3}), r"set\.motab must be a group"),
        (_set("arms.opd.set", {"steps": "many"}), r"arms\.opd\.set\.steps='many'"),
        (_set("shared.tempo", 3), r"shared\.tempo"),
        (_set("shared.data.tset", {"size": 3}), r"shared\.data\.tset: .*shared\.data\.test"),
        (
            _set("arms.opd.set", {"student": {"path": "elsewhere"}}),
            r"opd.* differ in student\.path",
        ),
        (
            _set("arms.opd.set", {"data": {"test": {"size": 9}}}),
            r"opd.* differ in data\.test\.size",
        ),
        (_set("arms.opd.set", {"data": {"train": {"size": 9}}}), r"differ in data\.train\.size"),
    ],
)
def test_what_is_wrong_is_named_before_any_run(change, message, tmp_path):
    study = small_study()
    change(study)
    train = FakeTrainer()
    with pytest.raises(ValueError, match=message):
        compare(read_study(study), tmp_path / "study", train=train, console=QUIET)
    assert not train.asked
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("seeds", 3, "seeds=3 must be a list"),
        ("updates", 1.5, r"updates=1\.5 must be a whole number"),
        ("batch_size", True, "batch_size=True must be a whole number"),
        ("title", 3, "title=3 must be a string"),
        ("shared", 3, "shared=3 must be a section"),
        ("arms.opd.arg", 3, r"arms\.opd\.arg=3 must be a string"),
        ("arms.opd.set", 3, r"arms\.opd\.set=3 must be a section"),
        ("arms.opd", "opd", r"arms\.opd='opd' must be a section"),
        ("learning_rates", (1e-3, "high"), "learning_rates='high' must be a number"),
    ],
)
def test_a_value_of_another_type_is_named(path, value, message):
    fields = small_study().to_dict()
    *groups, last = path.split(".")
    node = fields
    for name in groups:
        node = node[name]
    node[last] = value
    with pytest.raises(ValueError, match=message):
        read_study(fields)


STUDIES = (motab_study, atesd_study, topd_study)


@pytest.mark.parametrize(
    ("module", "arg"), [(module, arg) for module in STUDIES for arg in module.ARGUMENTS]
)
def test_a_study_is_read_as_it_is_given(module, arg):
    """Every field, and nothing else: what a directory's rules hold is what the file says."""
    given = module.get_config(arg)
    study = read_study(given)
    fields = given.to_dict()
    assert dataclasses.asdict(study) == {"exposures": (), **fields}
    assert list(study.arms) == list(given.arms)
    assert study == read_study(json.loads(json.dumps(fields)))  # of a file, where tuples are lists
    for name in study.arms:
        assert study.label(name) == fields["arms"][name]["label"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        study.seeds = (3,)


def test_an_arm_without_a_label_is_called_by_its_name():
    study = small_study()
    study.arms.opd.label = ""
    assert read_study(study).label("opd") == "opd"
