"""Methods that grade what they train on: the grader is tested first, and time-outs are counted."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from configs import grpo, opd, rft
from distill.trajectories import Source, Trajectories
from experiments.config.read import read_config
from experiments.data.batches import PromptBatch
from experiments.grading import POOL, GradingError, Verdict, verdict
from experiments.methods import make_recipe
from experiments.methods.offline import Offline
from experiments.methods.online import Online
from experiments.pair.pair import load_pair, start_student
from experiments.rollouts import recipe as recipe_module
from experiments.rollouts.synthesis import SYNTHESIS, synthesise
from experiments.tasks.example import Example
from models.text.tokenizer import encode


def small(module, **fields):
    config = module.get_config("smoke")
    config.steps, config.batch_size, config.data.train.size = 1, 4, 4
    config.synthesis.trajectories_per_prompt = 2
    if module is rft:
        config.synthesis.trajectories = 8
    (config.grpo if module is grpo else config.rollout).max_total = 24
    return read_config(config)


@pytest.fixture(scope="module")
def pair():
    return load_pair(small(rft))


@pytest.fixture
def no_grader(monkeypatch):
    POOL.close()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")


def never(*_, **__):
    raise AssertionError("a rollout was made")


def test_a_broken_grader_is_found_before_any_rollout(pair, no_grader, monkeypatch, tmp_path):
    monkeypatch.setattr(recipe_module.Recipe, "__call__", never)
    monkeypatch.setattr(recipe_module.Recipe, "engine", never)
    config = small(grpo)
    with pytest.raises(GradingError, match="cannot be started"):
        Online(config, pair, make_recipe(config, pair))
    config = small(rft)
    with pytest.raises(GradingError, match="cannot be started"):
        synthesise(config, pair, make_recipe(config, pair), tmp_path / SYNTHESIS)


def test_a_method_that_grades_nothing_needs_no_grader(pair, no_grader):
    config = small(opd)
    recipe = make_recipe(config, pair)
    assert Online(config, pair, recipe).recipe is recipe
    assert not recipe.needs_answer


def test_grpo_counts_answers_that_timed_out(pair, monkeypatch):
    def slow(text, example):
        return Verdict(False, "7", timed_out=True) if "7" in text else verdict(text, example)

    monkeypatch.setattr("experiments.rollouts.own_samples.verdict", slow)
    texts = ["\\boxed{1}", "\\boxed{7}", "\\boxed{7}", "\\boxed{2}"]
    ids = np.array([encode(pair.tokenizer, text) for text in texts], np.int32)
    zeros = np.zeros(ids.shape, np.float32)
    source = np.full(ids.shape, Source.STUDENT)
    trajectories = Trajectories(ids, source, zeros, zeros, ids, ids)
    examples = tuple(Example(str(i), "?", "", answer, "") for i, answer in enumerate("12"))
    two = np.zeros(2, np.int32)
    recipe = make_recipe(small(grpo), pair)
    (_, rewards), metrics = recipe.training_inputs(
        trajectories, {}, PromptBatch(two[:, None], two, two, examples), 2
    )
    np.testing.assert_array_equal(rewards, [1, 0, 0, 1])
    assert metrics["timed_out"] == 2
    rows = recipe.readable(trajectories, {}, [x for x in examples for _ in range(2)])
    assert [row["timed_out"] for row in rows] == [False, True, True, False]


@pytest.mark.slow
def test_rft_counts_answers_of_its_file_that_timed_out(pair, monkeypatch, tmp_path):
    asked = []

    def slow(text, example):
        asked.append(text)
        late = len(asked) % 4 == 0
        return Verdict(not late, "7", timed_out=late)

    monkeypatch.setattr("experiments.methods.distillation.verdict", slow)
    config = small(rft)
    recipe = make_recipe(config, pair)
    method = Offline(config, pair, recipe, tmp_path)
    lines = [json.loads(x) for x in (tmp_path / SYNTHESIS).read_text().splitlines()[1:]]
    assert sum(line["timed_out"] for line in lines) == 2 == len(lines) // 4
    for line in lines:
        assert line["correct"] is not line["timed_out"]
        assert any(line["likelihood_weights"]) == line["correct"]
    state = method.init(start_student(pair, config.seed))
    metrics = method.step(state, next(method.batches), 0).metrics
    assert metrics["timed_out"] == 2
    assert metrics["kept"] == 6 / 8
