"""ATESD from end to end: what a run logs, kills at any step, references."""

from __future__ import annotations

import functools
import json
import shutil

import jax
import numpy as np
import pytest

from configs import atesd as atesd_config
from configs import opsd as opsd_config
from distill.rollouts.one_writer import make_slots
from experiments.config.read import read_config
from experiments.data.batches import prompt_batches
from experiments.data.sources import load_source
from experiments.methods import make_method, make_recipe
from experiments.methods.atesd import AtesdRecipe
from experiments.methods.online import Online
from experiments.pair.pair import load_pair, start_student
from experiments.train.loop import run
from experiments.workdir.workdir import Workdir

from ..atesd_runs import EMA, HOLD, STEPS, small
from ..finished_runs import same, saved, train_log

pytestmark = pytest.mark.filterwarnings("ignore:Sharding info not provided")


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """Nothing here runs for long."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


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


@pytest.fixture
def no_probe(monkeypatch):
    """Recipes that sample nothing when they are made."""
    monkeypatch.setattr(AtesdRecipe, "_read_probe", lambda self: None)


def test_a_run_logs_what_the_controller_does(trained):
    workdir, results = trained()
    log = train_log(workdir)
    assert [r["step"] for r in log] == list(range(1, STEPS + 1))
    for r in log:
        assert {
            "loss", "mismatch", "clipped", "disagreement", "confidence", "empty_responses",
            "exposure", "beta_a", "beta_b", "controller_entropy", "decision_reward", "gain", "grounding",
            "grounding_now", "probe_nll", "truncated", "references_without_answer",
            "references_empty", "references_overlong", "controller_loss", "observations_skipped",
        } <= set(r)  # fmt: skip
        assert all(np.isfinite(x) for x in r.values() if not isinstance(x, str))
        assert 0.05 <= r["exposure"] <= 0.95 and r["mismatch"] > 0 and r["grounding_now"] < 0
        # One is a sum over blocks of all rows, the other a mean of the rows' own.
        assert r["loss"] == pytest.approx(r["divergence"], rel=1e-6)
        assert r["loss_tokens"] == r["tokens"]
        assert r["references_without_answer"] == r["references_empty"] == 0
    for name in ("exposure", "probe_nll"):
        for i in range(1, STEPS):
            assert (log[i][name] == log[i - 1][name]) == (i % HOLD > 0), (name, i)
    # Decisions 0 and 1 are rewarded after steps 4 and 6, and train the policy.
    assert [r["decisions_completed"] for r in log] == [0, 0, 0, 1, 1, 2, 2]
    assert [r["controller_updates"] for r in log] == [0, 0, 0, 0, 0, 1, 1]
    assert log[3]["gain"] >= 0 > log[3]["grounding"]
    assert log[5]["beta_a"] == log[0]["beta_a"] != log[6]["beta_a"]
    # There is no teacher beside the student, and no accuracy of one.
    assert results["teacher"] is None and results["loss_tokens"] == sum(r["tokens"] for r in log)
    assert not same(saved(workdir, 1)["params"], saved(workdir, STEPS)["params"])


@pytest.mark.parametrize(
    ("fields", "step"),
    [*(pytest.param(*x, marks=pytest.mark.slow) for x in (({}, 1), ({}, 3), (EMA, 3))), ({}, 6)],
)
def test_resumed_after_any_step_a_run_ends_bit_identical(fields, step, trained, tmp_path):
    """Within a hold and at its end, with rewards half gathered, before and after an update."""
    whole, _ = trained(**fields)
    cut = tmp_path / "cut"
    shutil.copytree(whole, cut)
    (cut / "results.json").unlink()
    for later in range(step + 1, STEPS + 1):
        shutil.rmtree(cut / "checkpoints" / str(later))
    run(small(**fields), cut)
    assert train_log(cut) == train_log(whole)
    last = saved(cut, STEPS)
    assert same(last, saved(whole, STEPS)) and not same(last, saved(whole, step))
    assert set(last["method_state"]) == {"controller", *(["teacher_params"] if fields else [])}


@pytest.mark.slow
def test_interrupted_between_checkpoints_it_ends_the_same(trained, tmp_path, monkeypatch):
    whole, _ = trained()
    config = small(checkpoint={"every": 3})
    plain = Online.step

    def dies(self, state, batch, step):
        if step == 5:
            raise KeyboardInterrupt
        return plain(self, state, batch, step)

    with monkeypatch.context() as patch:
        patch.setattr(Online, "step", dies)
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path / "cut")
    assert sorted(p.name for p in (tmp_path / "cut" / "checkpoints").iterdir()) == ["3"]
    run(config, tmp_path / "cut")
    assert train_log(tmp_path / "cut") == train_log(whole)
    assert same(saved(tmp_path / "cut", STEPS), saved(whole, STEPS))


@pytest.mark.slow
def test_an_averaged_teacher_follows_the_student(trained):
    workdir, _ = trained(**EMA)
    before, after = saved(workdir, STEPS - 1), saved(workdir, STEPS)
    average = before["method_state"]["teacher_params"]
    expected = jax.tree.map(lambda a, p: 0.99 * a + 0.01 * p, average, after["params"])
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7),
        after["method_state"]["teacher_params"],
        expected,
    )
    assert not same(average, after["method_state"]["teacher_params"])


@pytest.mark.slow
def test_groups_have_exposures_of_their_own(trained):
    for r in train_log(trained(**EMA)[0]):
        exposures = [r[f"exposure_{g}"] for g in range(3)]
        assert len(set(exposures)) == 3
        assert r["exposure"] == pytest.approx(np.mean(exposures))
        assert all(
            f"{name}_{g}" in r for name in ("decision_reward", "grounding") for g in range(3)
        )


@pytest.mark.slow
def test_students_write_the_same_whatever_the_teacher_sees(pair, tmp_path):
    """One round of noise, one text; what differs is the update."""
    written, updated = [], []
    for exposure in (0.0, 0.5, 1.0):
        config = small("smoke", opsd_config, controller={"fixed": exposure})
        with Workdir(tmp_path / str(exposure), config) as workdir:
            method = make_method(read_config(config), pair, workdir)
        params = start_student(pair, config.seed)
        batch = next(method.batches)
        written.append(jax.device_get(method.recipe(params, batch, 1, 0)[0]))
        outcome = method.step(method.init(params), batch, 0)
        updated.append(jax.device_get(outcome.state.params))
        assert outcome.metrics["exposure"] == exposure
        assert "decision_reward" not in outcome.metrics and "grounding_now" not in outcome.metrics
    assert same(written[0], written[1]) and same(written[0], written[2])
    assert np.any(written[0].divergence_weights_BxT)
    assert not same(updated[0], updated[1]) and not same(updated[1], updated[2])


@pytest.mark.slow
def test_irregular_references_are_counted_and_not_fatal(tmp_path):
    steps = "".join(f"{name}=1+8=9.\n\n" for name in "bcdef")
    records = [
        {"problem": "a=3,b=+8?", "answer": "1", "reference": "b=3+8=1.\n\n\\boxed{1}"},
        {"problem": "a=4,b=+8?", "answer": "2", "reference": "b=4+8=2.\n\n"},
        {"problem": "a=5,b=+8?", "answer": "3"},
        {"problem": "a=6,b=+8?", "answer": "4", "reference": "\\boxed{4}"},
        {"problem": "a=1,b=+8?", "answer": "9", "reference": steps + "\\boxed{9}"},
        {"problem": "a=2,b=+8?", "answer": "0", "reference": "b=2+8=0.\n\n\\boxed{0}"},
    ]
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in records))
    plain = {"min_steps": 0, "max_steps": 0}
    config = small("fixed-smoke", data={"train": {"name": str(file), "size": 0, **plain}})
    config.steps, config.batch_size = 2, len(records)
    run(config, tmp_path / "run")
    for r in train_log(tmp_path / "run"):
        assert r["references_without_answer"] == 2
        assert r["references_empty"] == 2
        assert r["references_overlong"] == 1
        assert np.isfinite(r["loss"]) and r["exposure"] == 0.5


@pytest.mark.parametrize(
    ("module", "arg"),
    [
        (module, arg)
        for module in (atesd_config, opsd_config)
        for arg in module.VARIANTS
        if not arg.startswith("qwen3")  # papers' settings, for models of their own
    ],
)
def test_every_variant_is_a_recipe_and_differs_where_it_says(module, arg, pair, no_probe):
    config, plain = module.get_config(arg), module.get_config("")
    recipe = make_recipe(read_config(config), pair)
    assert isinstance(recipe, AtesdRecipe)
    changed = {
        f"{section}.{name}": value
        for section in ("loss", "controller", "exposed", "exposure", "rollout")
        for name, value in config[section].items()
        if value != plain[section][name]
    }
    assert (
        changed
        == {
            "": {},
            "per_sample": {"controller.groups": 3},
            "one_step": {"controller.look_ahead": 1},
            "short_delay": {"controller.look_ahead": 5},
            "no_grounding": {"controller.lambda_gt": 0.0},
            "fixed": {"controller.policy": "fixed", "controller.fixed": 0.5},
            "random": {"controller.policy": "random"},
            "schedule": {
                "controller.policy": "schedule",
                "controller.schedule": ((0, 1.0), (150, 0.3)),
            },
            "ema": {"exposed.weights": "ema"},
            "live": {"exposed.weights": "live"},
            "clipped": {"loss.clip": "summand"},
        }[arg]
    )
    opsd = module is opsd_config
    assert recipe.controller.policy == ("fixed" if opsd else config.controller.policy)
    assert recipe.controller.fixed == (1.0 if opsd or arg != "fixed" else 0.5)
    assert (recipe.pair.teacher_params is None) == (arg in ("ema", "live"))
    assert set(recipe.method_state({"w": np.zeros(2)})) == (
        {"controller", "teacher_params"} if arg == "ema" else {"controller"}
    )


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("exposure", "template", "{problem}\n{reference}"),
        ("exposure", "unit", "sentence"),
        ("exposure", "max_reasoning", 12),
        ("exposure", "max_head", 8),
        ("exposure", "max_answer", 10),
        ("exposure", "max_tail", 14),
    ],
)
def test_what_the_teacher_reads_follows_the_config(section, name, value, pair, no_probe):
    def references(**fields):
        config = small(**fields)
        recipe = make_recipe(read_config(config), pair)
        batch = next(
            prompt_batches(
                load_source(config.data.train), pair.render, batch_size=2, max_prompt_tokens=25
            )
        )
        inputs, counts = recipe.training_inputs(None, None, batch, 2)
        return inputs[0].references, counts

    plain, counts = references()
    changed, _ = references(**{section: {name: value}})
    assert not same(plain, changed)
    # Copies of a prompt lie side by side, with the same reference.
    assert same(jax.tree.map(lambda x: x[0], plain), jax.tree.map(lambda x: x[1], plain))
    assert counts == {f"references_{k}": 0 for k in ("without_answer", "empty", "overlong")}


@pytest.mark.parametrize(
    ("name", "value"),
    [("student_temperature", 0.5), ("student_top_p", 0.9), ("student_top_k", 3), ("max_total", 20)],
)
def test_the_rollout_follows_the_config(name, value, pair, no_probe, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "experiments.rollouts.own_samples.make_slots",
        lambda *a, **k: seen.append(a) or make_slots(*a, **k),
    )
    make_recipe(read_config(small(rollout={name: value})), pair)
    ((config, sampling, max_total, eos_ids),) = seen
    expected = small().rollout.to_dict() | {name: value}
    assert (config, eos_ids) == (pair.student_config, pair.eos_ids)
    assert expected == {
        "student_temperature": sampling.temperature,
        "student_top_p": sampling.top_p,
        "student_top_k": sampling.top_k,
        "max_total": max_total,
    }


def test_the_probe_is_of_the_asked_size_and_the_initial_students(pair):
    recipe = make_recipe(read_config(small(exposure={"probe_size": 3})), pair)
    batch = recipe.training_inputs(None, None, next_batch(pair), 1)[0][1]
    assert batch.trajectories.tokens_BxT.shape[0] == len(batch.references.empty_B) == 3
    problems = [x.problem for x in list(load_source(small().data.validation))[:3]]
    for tokens, problem in zip(np.asarray(batch.trajectories.tokens_BxT), problems, strict=True):
        prompt = pair.render(problem)
        assert tokens[: len(prompt)].tolist() == prompt


def next_batch(pair):
    source = load_source(small().data.train)
    return next(prompt_batches(source, pair.render, batch_size=2, max_prompt_tokens=25))
