"""GRPO from end to end: groups, rewards, metrics, lagging weights, resuming, refusals."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from configs import grpo as grpo_config
from distill.losses.surrogate import group_advantages
from distill.train.state import create_state
from distill.trajectories import Source, Trajectories
from experiments.checkpoints.checkpoints import restore_params
from experiments.config.read import read_config
from experiments.data.batches import PromptBatch
from experiments.grading import grade
from experiments.methods import make_recipe
from experiments.pair.pair import load_pair, start_student
from experiments.tasks.example import Example
from experiments.train.loop import run
from experiments.workdir.workdir import read_log
from grpo.policy_gradient import GrpoSettings, SurrogateSums
from models.text.tokenizer import encode

from ..finished_runs import same, train_log

STEPS, GROUP = 3, 4
METRICS = (
    "loss", "surrogate", "kl", "clipped", "reward", "groups_without_signal", "grad_norm", "tokens",
)  # fmt: skip
# The published penalty: the reference are the student's initial weights.
PENALISED = {"grpo": {"kl_weight": 0.1}}
# Rollouts of weights that may be an update old, which big updates leave behind.
LAGGING = {
    "synthesis": {"sync_every": 2},
    "optimizer": {"learning_rate": 0.003, "warmup_fraction": 0.0},
}


def small(**fields) -> ConfigDict:
    """Three updates on three groups of four, no evaluation; `fields` are set by section."""
    config = grpo_config.get_config("smoke")
    config.steps, config.batch_size = STEPS, 3 * GROUP
    config.synthesis.trajectories_per_prompt = GROUP
    config.data.train.size = 32
    for data in ("validation", "test", "long"):
        config.data[data].name = ""
    config.grpo.max_total = 64
    config.checkpoint.update({"every": 1, "max_to_keep": 3, "keep_best": False})
    config.samples.update({"rows": 3 * GROUP, "every": 1})
    with config.unlocked():
        for section, values in fields.items():
            config[section].update(values)
    return config


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Fields to the workdir and results of a finished run; the same ones only once."""

    @functools.cache
    def finish(fields: str):
        workdir = tmp_path_factory.mktemp("runs") / "run"
        return workdir, run(small(**json.loads(fields)), workdir)

    return lambda **fields: finish(json.dumps(fields))


@pytest.fixture(scope="module")
def pair():
    return load_pair(read_config(small()))


def params(workdir: Path, step: int | str = "final"):
    return restore_params(workdir / "checkpoints", step)[0]


def test_a_run_logs_what_its_rows_say(trained):
    workdir, results = trained()
    readable = read_log(workdir / "trajectories.jsonl")
    train = train_log(workdir)
    assert [r["step"] for r in train] == [1, 2, 3]
    assert results["synthesis"]["tokens"] == {"student": results["loss_tokens"]}
    signals = []
    for record in train:
        rows = [r for r in readable if r["step"] == record["step"]]
        assert len(rows) == 3 * GROUP
        rewards = []
        for row in rows:
            text = "".join(part["text"] for part in row["parts"])
            assert row["reward"] == grade(text, row["answer"])
            rewards.append(row["reward"])
        groups = np.reshape(rewards, (3, GROUP))
        # The rows of a prompt lie side by side.
        ids = np.reshape([r["id"] for r in rows], (3, GROUP))
        assert np.all(ids == ids[:, :1])
        assert record["reward"] == pytest.approx(np.mean(rewards))
        silent = np.mean(groups.min(axis=1) == groups.max(axis=1))
        assert record["groups_without_signal"] == pytest.approx(silent)
        # Every response token counts, whatever its group's rewards.
        assert record["loss_tokens"] == record["tokens"] == record["tokens_student"] > 0
        assert record["loss"] == record["surrogate"] == pytest.approx(0, abs=1e-5)
        assert record["clipped"] == 0
        assert "kl" not in record
        assert (record["grad_norm"] > 0) == (silent < 1)
        signals.append(silent < 1)
    assert any(signals)
    assert not same(params(workdir, 1), params(workdir))


@pytest.mark.slow
def test_a_penalty_starts_at_zero_and_grows(trained):
    train = train_log(trained(**PENALISED, **LAGGING)[0])
    assert train[0]["kl"] == pytest.approx(0, abs=1e-6)
    for record in train[1:]:
        assert record["kl"] > 1e-4
        assert record["loss"] == pytest.approx(record["surrogate"] + 0.1 * record["kl"], rel=1e-4)


def test_clipping_acts_on_lagging_weights_alone(trained):
    train = train_log(trained(**PENALISED, **LAGGING)[0])
    # The first update is made with the weights that wrote the text.
    assert train[0]["clipped"] == 0
    assert any(0 < r["clipped"] < 1 for r in train[1:])


@pytest.mark.parametrize("lagging", [False, True])
@pytest.mark.parametrize(
    "field", [{"advantage": "none"}, {"normalise": "token"}, {"clip_low": 0.1, "clip_high": 0.3}]
)
def test_the_step_hands_settings_advantages_and_policies_to_the_loss(
    field, lagging, pair, monkeypatch
):
    seen = []

    def loss(params, config, settings, trajectories, advantages, old, *reference):
        seen.append((config, settings, trajectories, np.asarray(advantages), old, *reference))
        one = jnp.ones(())
        return SurrogateSums(jnp.sum(params["w"]), one, None, one, one, one, 0 * one)

    monkeypatch.setattr("experiments.methods.grpo.policy_gradient_loss", loss)
    recipe = make_recipe(read_config(small(grpo=field)), pair)
    carried = {"rollout_params": "older"} if lagging else {}
    optimizer = optax.sgd(0.5)
    state = create_state({"w": jnp.zeros(2)}, optimizer, carried)
    rewards = np.array([1, 0, 0, 1, 1, 1, 1, 0], np.float32)
    new, metrics = recipe.train_step(optimizer)(state, "reference", ("text", rewards))
    ((*first, advantages, old, reference, reference_config, vocab),) = seen
    assert first == [pair.student_config, GrpoSettings(**small(grpo=field).grpo), "text"]
    np.testing.assert_allclose(
        advantages, group_advantages(rewards, GROUP, field.get("advantage", "std")), rtol=1e-6
    )
    assert old == ("older" if lagging else None)
    assert (reference, reference_config) == ("reference", pair.teacher_config)
    assert vocab == pair.vocab_size
    np.testing.assert_array_equal(new.params["w"], -0.5)
    assert set(metrics) == {
        "loss", "surrogate", "clipped", "idle_rows", "loss_tokens", "grad_norm", "skipped", "idle",
    }  # fmt: skip


@pytest.mark.slow
def test_a_resumed_run_ends_bit_identical(trained, tmp_path):
    fields = {**PENALISED, **LAGGING}
    whole, _ = trained(**fields)
    cut = tmp_path / "cut"
    shutil.copytree(whole, cut)
    (cut / "results.json").unlink()
    for step in (2, 3):
        shutil.rmtree(cut / "checkpoints" / str(step))
    run(small(**fields), cut)
    assert same(params(whole), params(cut))
    for a, b in zip(train_log(whole), train_log(cut), strict=True):
        assert {name: a[name] for name in METRICS} == {name: b[name] for name in METRICS}


def written(pair, texts: list[str], answers: list[str]):
    """Trajectories [B] and the batch [B / 2] of two texts per answer, none of which ends."""
    ids = [encode(pair.tokenizer, text) for text in texts]
    tokens = np.zeros((len(ids), max(map(len, ids))), np.int32)
    for row, text in zip(tokens, ids, strict=True):
        row[: len(text)] = text
    source = np.where(tokens > 0, Source.STUDENT, Source.PADDING)
    zeros = np.zeros(tokens.shape, np.float32)
    examples = tuple(Example(str(i), "?", "", answer, "") for i, answer in enumerate(answers))
    count = np.zeros(len(answers), np.int32)
    batch = PromptBatch(count[:, None], count, count, examples)
    return Trajectories(tokens, source, zeros, zeros, tokens, tokens), batch


def test_rewards_are_verdicts_and_truncated_responses_are_graded_too(pair):
    texts = ["b=3+8=1.\n\n\\boxed{1}", "\\boxed{2}", "b=3+8=1.\n\n\\box", "\\boxed{7}"]
    trajectories, batch = written(pair, [*texts, "\\boxed{3}", "\\boxed{3}"], ["1", "7", "3"])
    recipe = make_recipe(read_config(small()), pair)
    (same_rows, rewards), metrics = recipe.training_inputs(trajectories, {}, batch, 2)
    assert same_rows is trajectories
    np.testing.assert_array_equal(rewards, [1, 0, 0, 1, 1, 1])
    assert metrics == {
        "reward": pytest.approx(4 / 6),
        "timed_out": 0,
        "groups_without_signal": pytest.approx(1 / 3),
    }


def test_a_budget_cuts_responses_off(pair):
    recipe = make_recipe(read_config(small(grpo={"max_total": 3})), pair)
    width = 16
    prompt = pair.render("a=3,b=+8,c=*4?")
    prompts = np.zeros((1, width), np.int32)
    prompts[0, : len(prompt)] = prompt
    lengths, ids = np.array([len(prompt)], np.int32), np.zeros(1, np.int32)
    batch = PromptBatch(prompts, lengths, ids, (Example("0", "?", "", "4", ""),))
    trajectories, record, metrics = recipe(start_student(pair, small().seed), batch, GROUP, 0)
    assert trajectories.tokens_BxT.shape == (GROUP, width + 3)
    assert float(metrics["truncated"]) == 1 and float(metrics["tokens"]) == 3 * GROUP
    lines = recipe.lines(*jax.device_get((trajectories, record)), batch.examples * GROUP)
    assert recipe.row_metrics(lines) == {"truncated": 1.0}
    assert all(line["likelihood_weights"][-3:] == [1.0] * 3 for line in lines)


def test_the_penalty_is_towards_the_student_before_training():
    config = small()
    alone = load_pair(read_config(config))
    assert make_recipe(read_config(config), alone).pair.teacher_params is None
    config.grpo.kl_weight = 0.1
    recipe = make_recipe(read_config(config), alone)
    assert recipe.pair.teacher_config == alone.student_config
    assert same(recipe.pair.teacher_params, start_student(alone, config.seed))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"grpo": {"beta": 0.1}}, r"grpo\.beta: there is no such field; there are clip_low"),
        ({"grpo": {"student_top_p": 0.9}}, r"grpo\.student_top_p: there is no such field"),
        ({"grpo": {"student_temperature": 0.6}}, r"grpo\.student_temperature=0\.6"),
        ({"grpo": {"advantage": "rank"}}, r"grpo\.advantage='rank'"),
        ({"synthesis": {"mode": "offline"}}, r"synthesis\.mode='offline' with method='grpo'"),
        ({"synthesis": {"trajectories_per_prompt": 1}}, r"trajectories_per_prompt=1.*Use 2"),
        ({"synthesis": {"trajectories_per_prompt": 5}}, r"batch_size=12 is not a multiple"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(fields, message, pair):
    with pytest.raises(ValueError, match=message):
        make_recipe(read_config(small(**fields)), pair)


def test_variants():
    plain, token = (grpo_config.get_config(arg).grpo.to_dict() for arg in ("", "token"))
    assert token == {**plain, "normalise": "token", "clip_high": 0.28}
    assert grpo_config.get_config("token-smoke").grpo.to_dict() == token
    assert grpo_config.get_config("token-smoke").steps < grpo_config.get_config("token").steps
