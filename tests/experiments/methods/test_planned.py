"""Methods of the family, from config to results: they train, log, keep and refuse."""

from __future__ import annotations

import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from configs import rlsd
from experiments.config.read import read_config
from experiments.data.batches import prompt_batches
from experiments.data.sources import load_source
from experiments.methods import make_recipe
from experiments.pair.pair import load_pair
from experiments.rollouts.synthesis import SYNTHESIS
from experiments.train.loop import run
from experiments.workdir.workdir import read_log

from ..config.test_configs import explained_metrics
from ..planned_runs import small


def trained(directory):
    """Metrics of the updates."""
    rows = read_log(directory / "metrics.jsonl")
    assert not {name for row in rows for name in row} - explained_metrics()
    return [row for row in rows if row.get("kind") == "train"]


CASES = [
    ("kdrl", "advantage", {"surrogate", "clipped", "gap", "reward", "groups_without_signal"}),
    *(
        pytest.param(*case, marks=pytest.mark.slow)
        for case in [
            ("kdrl", "", {"surrogate", "likelihood", "gap", "reward"}),
            ("rl_hybrids", "opd_on_wrong", {"surrogate", "gap", "reward"}),
            ("rl_hybrids", "hdpo", {"surrogate", "gap", "reward"}),
            ("rl_hybrids", "switch", {"surrogate", "gap", "reward"}),
            ("rlad", "", {"surrogate", "gap", "limited", "reward"}),
            ("rlsd", "", {"surrogate", "gap", "limited", "reward"}),
            ("sdar", "", {"surrogate", "likelihood", "gap", "reward"}),
            ("scope", "", {"surrogate", "gap", "reward"}),
            ("opd", "lagged", {"surrogate", "clipped", "gap"}),
            ("opd", "vopd", {"surrogate", "gap"}),
            ("opd", "jsd", {"surrogate", "gap"}),
            ("opd", "power", {"surrogate", "gap"}),
            ("opd", "g_opd", {"surrogate", "gap"}),
            ("opd", "eopd", {"surrogate", "divergence", "gap"}),
            ("opd", "tip", {"surrogate", "gap"}),
            ("opd", "iw", {"surrogate", "gap"}),
            ("opd", "cord", {"divergence", "gap"}),
        ]
    ),
]


@pytest.mark.parametrize(("name", "arg", "metrics"), CASES)
def test_it_trains_and_says_so(name, arg, metrics, tmp_path):
    run(small(name, arg), tmp_path)
    rows = trained(tmp_path)
    assert len(rows) == 2 and all(metrics <= row.keys() for row in rows)
    for row in rows:
        assert row["skipped"] == 0 and np.isfinite(row["loss"])
        assert row["idle"] == 0 or name in ("rlad", "rlsd")  # a group may have no signal


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A finished run of Lightning OPD."""
    directory = tmp_path_factory.mktemp("kept")
    run(small("lightning", ""), directory)
    return directory


def test_one_number_is_kept_for_each_token(kept):
    rows = trained(kept)
    assert {"surrogate", "gap", "limited"} <= rows[0].keys() and rows[0]["gap"] < 0
    files = sorted((kept / f"{SYNTHESIS}.teacher").iterdir())
    arrays = [load_file(file) for file in files]
    assert all(set(x) == {"sampled_BxT"} and x["sampled_BxT"].ndim == 1 for x in arrays)
    assert all(x["sampled_BxT"].dtype == np.float32 for x in arrays)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"teacher__path": "embedded:reader"}, "made with another teacher"),
        ({"prompt__max_tokens": 47}, "with another prompt"),
        ({"rollout__student_temperature": 0.7}, "written with another rollout"),
        ({"student__path": "embedded:reader"}, "written with another student"),
    ],
)
def test_what_was_kept_for_something_else_is_refused(kept, fields, message, tmp_path):
    file = tmp_path / "text.jsonl"
    shutil.copy(kept / SYNTHESIS, file)
    shutil.copytree(kept / f"{SYNTHESIS}.teacher", tmp_path / "text.jsonl.teacher")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(ValueError, match=message):
        run(small("lightning", "", synthesis__file=str(file), **fields), tmp_path / "run")
    assert {p: p.read_bytes() for p in before} == before


def test_the_exposed_teacher_reads_the_answer_before_each_response():
    config = read_config(rlsd.get_config("smoke"))
    pair = load_pair(config)
    recipe = make_recipe(config, pair)
    batch = next(
        prompt_batches(
            load_source(config.data.train.spec, True),
            pair.render,
            batch_size=2,
            max_prompt_tokens=48,
        )
    )
    contexts = recipe._contexts(batch, 3)
    assert contexts["contexts_BxC"].shape == (6, 96)
    for row, length, example in zip(
        contexts["contexts_BxC"][::3],
        contexts["context_lengths_B"][::3],
        batch.examples,
        strict=True,
    ):
        text = pair.tokenizer.decode(row[:length])
        assert f"\\boxed{{{example.answer}}}" in text and example.problem in text
        assert not row[length:].any()
    np.testing.assert_array_equal(contexts["contexts_BxC"][0], contexts["contexts_BxC"][2])


def test_what_a_step_takes_has_the_shapes_that_are_planned_for():
    config = read_config(rlsd.get_config("smoke"))
    recipe = make_recipe(config, load_pair(config))
    rows = jax.ShapeDtypeStruct((6, 9), np.int32)
    inputs = recipe.abstract_inputs(type("Rows", (), {"tokens_BxT": rows}))
    assert inputs.rewards_B.shape == (6,) and inputs.contexts_BxC.shape == (6, 96)
    assert inputs.context_lengths_B.shape == (6,) and inputs.log_ref_BxT is None
