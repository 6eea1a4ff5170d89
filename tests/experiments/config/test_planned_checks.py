"""Configs of the family: what is refused when they are read, and why."""

from __future__ import annotations

import importlib

import pytest

from experiments.config.read import read_config
from experiments.config.tree import METHODS, PlannedConfig
from family.pull import REFUSED


def changed(name, arg, **fields):
    config = importlib.import_module(f"configs.{name}").get_config(arg)
    for path, value in fields.items():
        *sections, last = path.split("__")
        node = config
        for section in sections:
            node = node[section]
        if value is None:
            del node[last]
        else:
            node[last] = value
    return config


@pytest.mark.parametrize("pull", REFUSED)
@pytest.mark.parametrize(
    ("name", "arg"), [("kdrl", ""), ("rl_hybrids", "opd_on_wrong"), ("rl_hybrids", "hdpo"), ("rl_hybrids", "switch"), ("opd", "lagged")]
)  # fmt: skip
def test_what_has_another_gradient_than_its_name_is_refused(name, arg, pull):
    with pytest.raises(ValueError, match=rf"plan\.pull='{pull}': .*Use one of"):
        read_config(changed(name, arg, plan__pull=pull))


TEACHER = {
    "path": "embedded:teacher",
    "thinking": "default",
    "dtype": "float32",
    "attention": "auto",
}


@pytest.mark.parametrize(
    ("name", "arg", "fields", "message"),
    [
        ("kdrl", "", {"teacher": None}, "method='kdrl' needs a teacher"),
        ("kdrl", "", {"synthesis__trajectories_per_prompt": 1}, "relative to those of other responses"),
        ("kdrl", "", {"synthesis__mode": "offline"}, r"synthesis\.mode='offline'"),
        ("kdrl", "", {"rollout__student_temperature": 0.6}, r"rollout\.student_temperature=0\.6 with method='kdrl'.*Set it to 1\.0"),
        ("scope", "", {"rollout__student_top_p": 0.9}, r"rollout\.student_top_p=0\.9"),
        ("rlad", "", {"rollout__student_top_k": 5}, r"rollout\.student_top_k=5"),
        ("kdrl", "", {"synthesis__sync_every": 2}, r"synthesis\.sync_every=2 .*plan\.form=advantage"),
        ("sdar", "", {"synthesis__sync_every": 2}, r"synthesis\.sync_every=2 .*has no ratio"),
        ("rlsd", "", {"context": None}, "context is missing"),
        ("rlsd", "", {"context__template": "{problem}"}, r"context\.template='\{problem\}' does not contain '\{answer\}'"),
        ("rlsd", "", {"teacher": TEACHER}, "teacher: method='rlsd' has the student itself"),
        ("rlad", "", {"context": {"template": "{problem}{answer}", "max_tokens": 9}}, "context: with method='rlad'"),
        ("lightning", "", {"synthesis__cache_teacher": False}, "its text and the teacher's scores are kept"),
        ("rlad", "", {"plan__alpha": 1.5}, r"plan\.alpha=1\.5 must lie in"),
        ("rlad", "", {"plan__beta": 0.1}, r"plan\.beta: there is no such field"),
        ("rlad", "", {"surrogate__normalise": "row"}, r"surrogate\.normalise='row'"),
        ("rlad", "", {"kl": {}}, "kl: there is no such field"),
    ],
)  # fmt: skip
def test_fields_that_do_not_go_together_are_refused(name, arg, fields, message):
    with pytest.raises(ValueError, match=message):
        read_config(changed(name, arg, **fields))


def test_ratios_stand_where_there_are_some():
    """Where the pull lies inside of the surrogate, older weights may write."""
    for name, arg in (("kdrl", "advantage"), ("rlad", ""), ("opd", "lagged")):
        assert read_config(changed(name, arg, synthesis__sync_every=2)).synthesis.sync_every == 2
    # Lightning's text has no ratio at all.
    assert read_config(changed("lightning", "")).rollout.student_temperature == 0.8


def test_every_method_of_the_family_has_a_class_with_its_own_settings():
    from family import METHODS as FAMILY

    for name, method in FAMILY.items():
        kind = METHODS[name]
        assert issubclass(kind, PlannedConfig)
        assert kind.__dataclass_fields__["plan"].type is method.settings


def test_the_teacher_s_text_is_what_the_template_says():
    context = read_config(changed("rlsd", "")).context
    assert context.message("3+{answer}", "7") == "R:\\boxed{7}\n#\n3+{answer}"
