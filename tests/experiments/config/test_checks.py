"""Shared fields of a config: unknown, of another type, or too small."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
from ml_collections import ConfigDict

from configs import atesd, gkd, grpo, imitkd, kd, motab, opd, opsd, pretrain, rft, sft, skd
from experiments.config.checks import LEAST, check_config
from experiments.rollouts.positions import check_evaluation, check_rollout
from experiments.train.loop import run
from models import ModelConfig

ARMS = (atesd, gkd, grpo, imitkd, kd, motab, opd, opsd, rft, sft, skd)


@pytest.mark.parametrize("config", [*[m.get_config() for m in ARMS], pretrain.get_config("reader")])
def test_every_config_of_ours_passes(config):
    check_config(config)


def changed(path: str, value) -> ConfigDict:
    config = ConfigDict(motab.get_config().to_dict(), type_safe=False)
    *parents, name = path.split(".")
    node = config
    for parent in parents:
        node = node[parent]
    node[name] = value
    return config


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("stepz", 3, "stepz: there is no such field"),
        ("steps", "many", "steps='many' must be a whole number, not str"),
        ("steps", 2.5, "steps=2.5 must be a whole number"),
        ("steps", True, "steps=True must be a whole number"),
        ("student", "embedded:student", "student='embedded:student' must be a section"),
        ("student.path", 3, "student.path=3 must be text"),
        ("prompt.chat", "yes", "prompt.chat='yes' must be true or false"),
        ("evaluation.top_p", "1", "evaluation.top_p='1' must be a number"),
        ("data.train.name", None, "data.train.name=None must be text"),
        *[(name, least - 1, rf"{name}={least - 1}(\.0)? must be at least {least}") for name, least in LEAST.items()],
    ],
)  # fmt: skip
def test_a_bad_field_is_named_before_anything_is_made(path, value, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(changed(path, value), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_missing_field_is_named():
    config = ConfigDict(motab.get_config().to_dict())
    del config["seed"]
    with pytest.raises(ValueError, match=r"seed is missing\."):
        check_config(config)


def test_prompt_and_response_must_fit_into_both_models():
    model = ModelConfig("qwen3", 64, 32, 48, 1, 2, 1, 16, qk_norm=True, max_positions=100)
    config = motab.get_config()
    config.prompt.max_tokens, config.evaluation.max_tokens = 40, 60
    pair = SimpleNamespace(student_config=model, teacher_config=None)
    check_evaluation(config, pair)
    pair.teacher_config = dataclasses.replace(model, max_positions=99)
    message = r"prompt\.max_tokens=40 and evaluation\.max_tokens=60 are 100 .* teacher has 99"
    with pytest.raises(ValueError, match=message):
        check_evaluation(config, pair)
    recipe = SimpleNamespace(section="motab", max_total=60, pair=pair)
    with pytest.raises(ValueError, match=r"motab\.max_total=60 are 100 tokens"):
        check_rollout(config, recipe)
