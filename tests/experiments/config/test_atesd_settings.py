"""ATESD's config: what makes no sense is refused before any work."""

from __future__ import annotations

import pytest

from configs.common import shared
from experiments.config.read import read_config
from experiments.methods import make_recipe
from experiments.methods.atesd import AtesdRecipe
from experiments.pair.pair import load_pair

from ..atesd_runs import ROWS, small


@pytest.fixture(scope="module")
def pair():
    return load_pair(read_config(small()))


@pytest.fixture
def no_probe(monkeypatch):
    """Recipes that sample nothing when they are made."""
    monkeypatch.setattr(AtesdRecipe, "_read_probe", lambda self: None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"loss": {"clipp": 1}}, r"loss\.clipp: there is no such field; there are divergence"),
        ({"controller": {"holds": 1}}, r"controller\.holds: there is no such field"),
        ({"exposed": {"weight": "ema"}}, r"exposed\.weight: there is no such field"),
        ({"exposure": {"units": "token"}}, r"exposure\.units: there is no such field"),
        ({"rollout": {"policy": "student"}}, r"rollout\.policy: there is no such field"),
        ({"loss": {"divergence": "mse"}}, r"loss\.divergence='mse'"),
        ({"controller": {"hold": 0}}, r"controller\.hold=0"),
        ({"exposed": {"weights": "moving"}}, r"exposed\.weights='moving'"),
        ({"exposure": {"max_tail": 0}}, r"exposure\.max_tail=0 must be at least 1"),
        ({"exposure": {"probe_size": -1}}, r"exposure\.probe_size=-1 must be 0"),
        ({"exposure": {"probe_size": 0}}, r"exposure\.probe_size=0 with controller\.policy='learn"),
        ({"exposure": {"unit": "word"}}, r"exposure\.unit='word'"),
        ({"exposure": {"template": "{problem}"}}, r"exposure\.template='\{problem\}'"),
        ({"rollout": {"student_temperature": -1.0}}, r"rollout\.student_temperature=-1\.0"),
        ({"rollout": {"student_top_p": 0.0}}, r"rollout\.student_top_p=0\.0 must lie in \(0, 1\]"),
        ({"rollout": {"student_top_k": -1}}, r"rollout\.student_top_k=-1"),
        ({"rollout": {"max_total": 0}}, r"rollout\.max_total=0 must be at least 1"),
        ({"synthesis": {"mode": "offline"}}, r"synthesis\.mode='offline' with method='atesd'"),
        (
            {"exposure": {"probe_size": ROWS + 1}},
            rf"exposure\.probe_size={ROWS + 1}, but data\.validation has {ROWS} problems",
        ),
        ({"data": {"validation": {"name": ""}}}, r"data\.validation\.name is empty"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(fields, message, pair, monkeypatch):
    # Nothing is sampled before it is refused.
    monkeypatch.setattr(AtesdRecipe, "__call__", lambda self, *inputs: (None, None, None))
    with pytest.raises(ValueError, match=message):
        make_recipe(read_config(small(**fields)), pair)


@pytest.mark.parametrize("weights", ["ema", "live"])
def test_another_teacher_and_weights_of_the_student_are_refused(weights):
    config = small(exposed={"weights": weights})
    with config.unlocked():
        config.teacher = shared()["teacher"] | {"path": "embedded:student"}
    with pytest.raises(ValueError, match=rf"exposed\.weights='{weights}' with a teacher section"):
        make_recipe(read_config(config), load_pair(read_config(config)))


def test_an_external_teacher_may_be_frozen(no_probe):
    config = small()
    with config.unlocked():
        config.teacher = shared()["teacher"] | {"path": "embedded:teacher"}
    external = load_pair(read_config(config))
    recipe = make_recipe(read_config(config), external)
    assert recipe.pair is external and recipe.pair.teacher_config != recipe.pair.student_config
