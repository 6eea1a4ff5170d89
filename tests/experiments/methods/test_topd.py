"""TOPD from end to end: what a run logs, kills at any step, variants, and what is refused."""

from __future__ import annotations

import json
import shutil

import jax
import numpy as np
import pytest

from configs import topd as topd_config
from experiments.config.read import read_config
from experiments.data.batches import prompt_batches
from experiments.data.sources import load_source
from experiments.methods import make_method, make_recipe
from experiments.methods.distillation import DistillationRecipe
from experiments.methods.topd import TopdRecipe
from experiments.pair.pair import load_pair, start_student
from experiments.train.loop import run
from experiments.workdir.workdir import Workdir

from ..finished_runs import same, saved, train_log
from ..topd_runs import ROWS, STEPS, small

pytestmark = pytest.mark.filterwarnings("ignore:Sharding info not provided")


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """Nothing here runs for long."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Workdir and results of a finished run."""
    workdir = tmp_path_factory.mktemp("runs") / "run"
    return workdir, run(small(samples={"every": 1, "rows": 2}), workdir)


@pytest.fixture(scope="module")
def pair():
    return load_pair(read_config(small()))


def test_a_run_logs_what_windows_say(trained):
    workdir, results = trained
    log = train_log(workdir)
    assert [r["step"] for r in log] == list(range(1, STEPS + 1))
    for r in log:
        assert {
            "loss", "divergence", "trajectory", "windows", "guided_windows", "distance",
            "candidate_loss", "low_distance", "threshold", "high", "gradient_ratio", "truncated",
        } <= set(r)  # fmt: skip
        assert all(np.isfinite(x) for x in r.values() if not isinstance(x, str))
        assert ROWS <= r["windows"] <= 2 * ROWS and r["low_distance"] >= 0
        assert r["loss"] == pytest.approx(r["divergence"] + 0.1 * r["trajectory"], rel=1e-5)
        assert r["loss_tokens"] == r["tokens"]
    assert sum(r["guided_windows"] for r in log) > 0
    assert results["loss_tokens"] == sum(r["tokens"] for r in log)
    lines = [json.loads(x) for x in (workdir / "trajectories.jsonl").read_text().splitlines()]
    assert len(lines) == 2 * STEPS
    for line in lines:
        for window in line["windows"]:
            assert window["position"] > 0 and window["student"] and window["teacher"]
            assert window["distance"] >= 0 and window["loss"] >= 0


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 3])
def test_resumed_after_any_step_a_run_ends_bit_identical(step, trained, tmp_path):
    """With the buffer half full, and when it has gone round."""
    whole, _ = trained
    cut = tmp_path / "cut"
    shutil.copytree(whole, cut)
    (cut / "results.json").unlink()
    for later in range(step + 1, STEPS + 1):
        shutil.rmtree(cut / "checkpoints" / str(later))
    run(small(samples={"every": 1, "rows": 2}), cut)
    assert train_log(cut) == train_log(whole)
    last = saved(cut, STEPS)
    assert same(last, saved(whole, STEPS)) and not same(last, saved(whole, step))
    buffer = last["method_state"]["near_future"]["low"]
    assert int(buffer["count"]) == 4 * STEPS > buffer["values_N"].size and np.all(
        buffer["values_N"]
    )


@pytest.mark.parametrize("arg", topd_config.VARIANTS)
def test_every_variant_is_a_recipe_and_differs_where_it_says(arg, pair):
    config, plain = topd_config.get_config(arg), topd_config.get_config("")
    recipe = make_recipe(read_config(config), pair)
    if arg == "opd":
        assert isinstance(recipe, DistillationRecipe)
        assert recipe.signal == make_recipe(read_config(plain), pair).opd
        for name in ("student_temperature", "student_top_p", "max_total"):
            assert config.rollout[name] == plain.rollout[name]
        assert not {"windows", "transport", "guidance"} & set(config)
        return
    assert isinstance(recipe, TopdRecipe)
    changed = {
        f"{section}.{name}": value
        for section in ("windows", "transport", "guidance", "rollout", "signal")
        for name, value in config[section].items()
        if value != plain[section][name]
    }
    quiet = {"guidance.gradient_ratio_every": 0}
    assert (
        changed
        == {
            "": {},
            "low_ot": {"guidance.objective": "cap_low", **quiet},
            "high_ot": {"guidance.objective": "cap_high", **quiet},
            "identity": {"guidance.plan": "identity"},
            "teacher": {"guidance.plan": "identity", "guidance.context": "teacher"},
            "loss": {"guidance.rule": "loss"},
        }[arg]
    )


@pytest.mark.slow
def test_students_write_the_same_whatever_is_looked_at(pair, tmp_path):
    """Windows draw noise of their own, and leave no trace in rollouts."""
    written = []
    for name, fields in (
        ("plain", {}),
        ("sampled", {"windows": {"temperature": 1.0}}),
        ("low_ot-smoke", {}),
        ("opd-smoke", {}),
    ):
        config = small(name if name.endswith("smoke") else "smoke", **fields)
        with Workdir(tmp_path / name, config) as workdir:
            method = make_method(read_config(config), pair, workdir)
        batch = next(method.batches)
        written.append(
            jax.device_get(method.recipe(start_student(pair, config.seed), batch, 1, 0)[0])
        )  # fmt: skip
    assert all(same(written[0], other) for other in written[1:])


@pytest.mark.slow
@pytest.mark.parametrize("slots", [0, 3])
def test_slots_write_what_is_probed(slots, pair):
    config = small(synthesis={"slots": slots})
    recipe = make_recipe(read_config(config), pair)
    batch = next(
        prompt_batches(
            load_source(config.data.train), pair.render, batch_size=ROWS, max_prompt_tokens=25
        )
    )
    trajectories, record, _ = recipe(start_student(pair, config.seed), batch, 1, 0)
    inputs, _ = recipe.training_inputs(trajectories, record, batch, 1)
    starts = inputs.probe.starts
    weights = np.take_along_axis(
        np.asarray(trajectories.divergence_weights_BxT), np.asarray(starts.at_BxW), axis=1
    )
    assert np.all(weights[np.asarray(starts.valid_BxW)] == 1)
    assert np.asarray(record["truncated"]).shape == (ROWS,)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"windows": {"token": 1}}, r"windows\.token: there is no such field; there are tokens"),
        ({"transport": {"eps": 1}}, r"transport\.eps: there is no such field"),
        ({"guidance": {"lambda": 1}}, r"guidance\.lambda: there is no such field"),
        ({"rollout": {"policy": "student"}}, r"rollout\.policy: there is no such field"),
        ({"windows": {"share": 2.0}}, r"windows\.share=2\.0"),
        ({"transport": {"cost": "l1"}}, r"transport\.cost='l1'"),
        ({"guidance": {"rows": "two"}}, r"guidance\.rows='two'"),
        ({"synthesis": {"mode": "offline"}}, r"synthesis\.mode='offline' with method='topd'"),
        (
            {"guidance": {"buffer": 3, "min_buffer": 3}},
            r"guidance\.buffer=3 holds fewer distances than the 4 rows",
        ),
        (
            {"windows": {"tokens": 9999}},
            r"rollout\.max_total=24 and windows\.tokens=9999 are 10048 tokens, but the student has",
        ),
        ({"windows": {"per_rollout": 40}}, r"windows\.per_rollout=40 with rollout\.max_total=24"),
        (
            {
                "signal": {"support": "sampled", "form": "advantage"},
                "rollout": {"student_top_k": 5},
            },
            r"rollout\.student_top_k=5 with signal\.support='sampled'",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(fields, message, pair):
    with pytest.raises(ValueError, match=message):
        make_recipe(read_config(small(**fields)), pair)


def test_a_teacher_is_needed():
    config = small()
    with config.unlocked():
        del config["teacher"]
    with pytest.raises(ValueError, match=r"method='topd' needs a teacher: set teacher\.path"):
        make_recipe(read_config(config), load_pair(read_config(config)))


def test_low_rows_that_do_not_divide_over_the_devices_are_refused(pair, monkeypatch):
    monkeypatch.setattr("experiments.methods.topd.batch_multiple", lambda mesh: 8)
    with pytest.raises(ValueError, match=r"windows\.low_rows=4 rows do not divide over the 8"):
        make_recipe(read_config(small()), pair)
    make_recipe(read_config(small(windows={"low_rows": 0})), pair)
    make_recipe(read_config(small(guidance={"rule": "loss"})), pair)
