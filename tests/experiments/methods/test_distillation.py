"""The baselines from end to end: what they write, what they train on, what they refuse."""

from __future__ import annotations

import functools
import importlib
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments.checkpoints.checkpoints import restore_params
from experiments.config.read import read_config
from experiments.grading import grade
from experiments.methods import make_recipe
from experiments.methods.offline import Offline
from experiments.pair.pair import load_pair
from experiments.train.loop import run
from experiments.workdir.workdir import read_log

# Which tokens an arm trains on, and which shares it reports besides `truncated`.
ARMS = {
    "sft": ({"teacher"}, set()),
    "rft": ({"student"}, {"kept"}),
    "imitkd": ({"student", "teacher"}, set()),
    "skd:0.8": ({"student", "teacher"}, {"accepted"}),
    "opd": ({"student"}, set()),
    "opd:topk_student": ({"student"}, set()),
    "opd:topk_teacher": ({"student"}, set()),
    "opd:topk_union": ({"student"}, set()),
    "opd:sampled": ({"student"}, set()),
    "gkd": ({"student", "teacher"}, set()),
}
# Those that another arm is almost.
RELATED = ("imitkd", "gkd", *(x for x in ARMS if x.startswith("opd:")))


def small(arm: str, **fields) -> ConfigDict:
    """Two updates on eight prompts, no evaluation; `fields` are set on top, by section."""
    name, _, arg = arm.partition(":")
    config = importlib.import_module(f"configs.{name}").get_config(arg)
    config.steps, config.batch_size = 2, 4
    config.data.train.size = 8
    for data in ("validation", "test", "long"):
        config.data[data].name = ""
    config.rollout.max_total = 64
    if "signal" in config and "top_k" in config.signal:
        config.signal.top_k = 5
    if "trajectories" in config.synthesis:
        config.synthesis.trajectories = 8 * config.synthesis.trajectories_per_prompt
    config.checkpoint.update({"every": 1, "keep_best": False})
    config.samples.every = 1
    with config.unlocked():
        for name, value in fields.items():
            if isinstance(value, dict):
                config[name].update(value)
            else:
                config[name] = value
    return config


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(arm, fields) to the workdir and results of a finished run; the same ones only once."""

    @functools.cache
    def finish(arm: str, fields: str = "{}"):
        workdir = tmp_path_factory.mktemp("runs") / arm.replace(":", "-")
        return workdir, run(small(arm, **json.loads(fields)), workdir)

    return lambda arm, **fields: finish(arm, json.dumps(fields))


@pytest.fixture(scope="module")
def pair():
    return load_pair(read_config(small("opd")))


def params(workdir: Path):
    return restore_params(workdir / "checkpoints", "final")[0]


def same(a: Path, b: Path) -> bool:
    equal = jax.tree.map(np.array_equal, params(a), params(b))
    return all(jax.tree.leaves(equal))


def synthesised(workdir: Path) -> list[dict]:
    lines = (workdir / "synthesis.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines[1:]]


@pytest.mark.parametrize(
    "arm",
    [pytest.param(arm, marks=pytest.mark.slow if arm in RELATED else ()) for arm in ARMS],
)
def test_an_arm_trains_from_end_to_end(arm, trained):
    sources, shares = ARMS[arm]
    workdir, results = trained(arm)
    synthesis = results["synthesis"]
    assert set(synthesis) == {"trajectories", "truncated", "tokens", *shares}
    assert synthesis["trajectories"] == 8
    assert {source for source, count in synthesis["tokens"].items() if count} == sources
    assert all(0 <= synthesis[share] <= 1 for share in shares)
    train = [r for r in read_log(workdir / "metrics.jsonl") if r["kind"] == "train"]
    loss = "likelihood" if workdir.name in ("sft", "rft", "imitkd", "skd-0.8") else "divergence"
    for record in train:
        # Every response token trains, and for one thing.
        assert record["loss_tokens"] == record["tokens"] == sum(
            record[f"tokens_{source}"] for source in synthesis["tokens"]
        )  # fmt: skip
        assert 0 < record["loss"] < 20
        assert record["loss"] == record[loss]
        assert np.isfinite(record["grad_norm"]) and record["grad_norm"] > 0
    readable = read_log(workdir / "trajectories.jsonl")
    assert {r["step"] for r in readable} == {1, 2}
    assert {part["source"] for r in readable for part in r["parts"]} <= sources
    assert (workdir / "report.png").exists()


def test_sft_sees_the_same_traces_in_every_epoch(trained, pair):
    workdir, _ = trained("sft")
    config = small("sft")
    method = Offline(read_config(config), pair, make_recipe(read_config(config), pair), workdir)
    epochs = []
    for _ in range(3):
        batches = [next(method.batches) for _ in range(4)]
        rows = [
            (record["sample_id"], batch["trajectories"].tokens_BxT[i].tobytes())
            for batch in batches
            for i, record in enumerate(batch["records"])
        ]
        assert len(rows) == 16
        epochs.append(rows)
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(epochs[2])
    assert epochs[0] != epochs[1]
    prompts = [r["readable"]["id"] for r in synthesised(workdir)]
    assert all(prompts.count(i) == config.synthesis.trajectories_per_prompt for i in set(prompts))
    assert len(set(prompts)) == config.data.train.size


def test_rft_trains_on_correct_answers_of_the_initial_student_alone(trained, pair):
    workdir, results = trained("rft")
    lines = synthesised(workdir)
    correct = []
    for line in lines:
        text = "".join(part["text"] for part in line["readable"]["parts"])
        right = grade(text, line["readable"]["answer"])
        assert line["correct"] == right == any(line["likelihood_weights"])
        assert not any(line["divergence_weights"])
        if right:
            correct.append(line["sample_id"])
            # All of the response trains, the prompt does not.
            assert line["likelihood_weights"] == [float(s == 2) for s in line["source"]]
    assert 0 < len(correct) < len(lines) == 32
    assert results["synthesis"]["kept"] == len(correct) / len(lines)
    config = small("rft")
    method = Offline(read_config(config), pair, make_recipe(read_config(config), pair), workdir)
    seen = [r["sample_id"] for _ in range(len(correct)) for r in next(method.batches)["records"]]
    assert set(seen) == set(correct)


@pytest.mark.slow
def test_gkd_with_both_ends_is_exact_opd(trained):
    """lambda = 1 and beta = 1: the student's samples and the reverse KL, bit for bit."""
    ends = {
        "rollout": {"on_policy_share": 1.0, "student_temperature": 0.6, "student_top_p": 0.95},
        "signal": {"jsd_beta": 1.0},
    }
    gkd, _ = trained("gkd", **ends)
    opd, _ = trained("opd")
    assert same(gkd, opd)
    assert not same(trained("gkd")[0], opd)


@pytest.mark.parametrize("arm", [pytest.param("skd:0.8", marks=pytest.mark.slow), "opd"])
def test_a_resumed_run_ends_bit_identical(arm, trained, tmp_path):
    whole, _ = trained(arm)
    cut = tmp_path / "cut"
    shutil.copytree(whole, cut)
    (cut / "results.json").unlink()
    shutil.rmtree(cut / "checkpoints" / "2")
    run(small(arm), cut)
    assert same(whole, cut)
    assert [r["step"] for r in read_log(cut / "metrics.jsonl") if r["kind"] == "train"] == [1, 2]


@pytest.mark.slow
def test_imitkd_and_skd_run_online_too(trained):
    online = {"mode": "online", "trajectories_per_prompt": 1, "sync_every": 2}
    # Such a rate ruins the student in one update.
    moved = {"learning_rate": 0.1, "warmup_fraction": 0.0}
    workdir, results = trained("skd:0.8", steps=3, synthesis=online, optimizer=moved)
    assert set(results["synthesis"]) == {"trajectories", "truncated", "accepted", "tokens"}
    assert not (workdir / "synthesis.jsonl").exists()
    # The initial weights wrote the text of the first two steps, as a student does that stands
    # still.
    still = {"learning_rate": 1e-30, "final_learning_rate": 0.0, "weight_decay": 0.0}
    fresh = {**online, "sync_every": 1}
    unmoved, _ = trained("skd:0.8", steps=3, synthesis=fresh, optimizer=still)
    ruined, _ = trained("skd:0.8", steps=3, synthesis=fresh, optimizer=moved)
    texts = [
        [
            (r["step"], r["parts"])
            for r in read_log(path / "trajectories.jsonl")
            if r["step"] <= online["sync_every"]
        ]
        for path in (workdir, unmoved, ruined)
    ]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


@pytest.mark.parametrize(
    ("arm", "fields", "message"),
    [
        ("sft", {"rollout": {"skd_beta": 0.5}}, r"rollout\.skd_beta.*does not read it"),
        ("sft", {"rollout": {"policy": "ppo"}}, r"rollout\.policy='ppo'"),
        ("sft", {"rollout": {"policy": "student"}}, r"rollout\.student_temperature is missing"),
        ("sft", {"rollout": {"loss": "mse"}}, r"rollout\.loss='mse'"),
        ("sft", {"rollout": {"loss": "divergence"}}, "signal is missing"),
        ("sft", {"synthesis": {"mode": "sometimes"}}, r"synthesis\.mode='sometimes'"),
        ("sft", {"synthesis": {"trajectories_per_prompt": 0}}, "trajectories_per_prompt=0"),
        ("opd", {"synthesis": {"trajectories_per_prompt": 3}}, "trajectories_per_prompt=3"),
        ("rft", {"synthesis": {"mode": "online"}}, "graded once"),
        ("imitkd", {"rollout": {"teacher_share": 1.5}}, r"rollout\.teacher_share=1\.5"),
        ("imitkd", {"rollout": {"delimiter": ""}}, r"rollout\.delimiter is empty"),
        ("skd", {"rollout": {"skd_beta": -0.1}}, r"rollout\.skd_beta=-0\.1 must be at least 0"),
        ("skd", {"rollout": {"max_step_tokens": 0}}, r"rollout\.max_step_tokens=0"),
        ("opd", {"rollout": {"loss": "likelihood"}}, "zero gradient in expectation"),
        ("opd", {"synthesis": {"mode": "offline"}}, "off-policy after the first update"),
        ("opd", {"signal": {"form": "advantage"}}, "zero gradient in expectation"),
        ("opd", {"signal": {"betta": 1.0}}, r"signal\.betta: there is no such field"),
        ("gkd", {"rollout": {"on_policy_share": -0.5}}, r"rollout\.on_policy_share=-0\.5"),
        ("opd:sampled", {"rollout": {"student_temperature": 0.6}}, "tempered distribution"),
        ("opd:sampled", {"rollout": {"student_top_p": 0.95}}, "filtered distribution"),
        ("opd:sampled", {"synthesis": {"sync_every": 2}}, "older weights"),
        ("gkd", {"signal": {"support": "sampled", "form": "advantage"}}, "on_policy_share=0.5"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_with_the_reason(arm, fields, message, pair):
    with pytest.raises(ValueError, match=message):
        make_recipe(read_config(small(arm, **fields)), pair)


def test_a_sampled_signal_on_the_teachers_text_is_refused(pair):
    config = small("skd", rollout={"loss": "divergence"}, synthesis={"mode": "online"})
    with config.unlocked():
        config.signal = {"support": "sampled", "form": "advantage"}
    with pytest.raises(ValueError, match="others wrote some of the tokens"):
        make_recipe(read_config(config), pair)


def test_a_signal_that_nothing_reads_is_refused(pair):
    config = small("sft")
    with config.unlocked():
        config.signal = {"divergence": "reverse_kl"}
    with pytest.raises(ValueError, match="reads no divergence"):
        make_recipe(read_config(config), pair)


def test_a_file_of_another_policy_is_refused(trained, tmp_path):
    workdir, _ = trained("sft")
    config = small("rft", synthesis={"file": str(workdir / "synthesis.jsonl")})
    with pytest.raises(ValueError, match="another rollout"):
        run(config, tmp_path)
