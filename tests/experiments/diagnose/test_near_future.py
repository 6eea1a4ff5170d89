"""Loss against transport distance: the summary against SciPy and loops, a pair, the command."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from scipy import stats

from experiments.diagnose.__main__ import main
from experiments.diagnose.near_future import KINDS, NearFutureSettings, near_future, summarize
from experiments.diagnose.near_future_picture import draw
from experiments.pair.model import Model
from experiments.tasks.chain import ChainSource
from experiments.tasks.chain_tokenizer import build_chain_tokenizer
from models import ModelConfig, init

TOKENIZER = build_chain_tokenizer()
EXAMPLES = list(ChainSource("test", size=3))
SETTINGS = NearFutureSettings(window=5, per_text=2, share=0.2, n=2, max_new_tokens=12, batch_size=4)
CONFIG = ModelConfig(
    "qwen3", 112, 16, 32, 1, 2, 1, 8, qk_norm=True, max_positions=256
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """Nothing here runs for long."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def model(seed):
    params = init(jax.random.key(seed), CONFIG)
    return Model({**params, "head": params["head"] * 8}, CONFIG)  # far from uniform


STUDENT, TEACHER = model(0), model(1)


def looked(student=STUDENT, teacher=TEACHER, settings=SETTINGS, **options):
    return near_future(
        student, teacher, TOKENIZER, EXAMPLES, settings, eos=(TOKENIZER.eos_token_id,),
        vocab_size=len(TOKENIZER), **options,
    )  # fmt: skip


def test_the_summary_is_that_of_scipy():
    rng = np.random.default_rng(0)
    points = {
        kind: np.round(rng.random((n, 2)), 3) for kind, n in zip(KINDS, (40, 30, 20), strict=True)
    }
    found = summarize(points)
    bound = np.quantile(points["low"][:, 1], 0.75)
    assert found["threshold"] == pytest.approx(bound)
    alarms = sum(d <= bound for _, d in points["high"]) / 40
    assert found["false_alarms"] == pytest.approx(alarms) and 0 < alarms < 1
    for kind in ("random", "high"):
        loss, distance = points[kind].T
        assert found["correlation"][kind]["pearson"] == pytest.approx(
            np.corrcoef(loss, distance)[0, 1]
        )
        ranks = [stats.rankdata(x) for x in (loss, distance)]
        assert found["correlation"][kind]["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1])
    for kind, count in zip(KINDS, (40, 30, 20), strict=True):
        position = found["positions"][kind]
        assert position["count"] == count
        assert position["median_loss"] == pytest.approx(np.median(points[kind][:, 0]))
        assert position["median_distance"] == pytest.approx(np.median(points[kind][:, 1]))
    points["random"][:, 0] = 1.0
    assert summarize(points)["correlation"]["random"] == {"pearson": None, "spearman": None}


@pytest.mark.slow
def test_high_losses_are_high_and_batches_do_not_matter():
    found = looked()
    assert found["texts"] == 6 and found["window"] == 5
    medians = {kind: x["median_loss"] for kind, x in found["positions"].items()}
    assert medians["high"] > medians["random"] >= medians["low"]
    assert found["positions"]["random"]["count"] == 12 == found["positions"]["low"]["count"]
    other = looked(settings=NearFutureSettings(**{**vars(SETTINGS), "batch_size": 3}))
    for kind in KINDS:
        np.testing.assert_allclose(found["points"][kind], other["points"][kind], atol=1e-4)


@pytest.mark.slow
def test_a_model_and_itself_never_part():
    found = looked(teacher=STUDENT)
    assert all(x["median_distance"] < 1e-3 for x in found["positions"].values())
    apart = looked()["positions"]
    assert all(x["median_distance"] > 0.1 for x in apart.values())


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="window=0 must be at least 1"):
        NearFutureSettings(window=0)
    wide = NearFutureSettings(window=100, max_new_tokens=150)
    with pytest.raises(ValueError, match="window=100 exceed the 256 positions"):
        looked(settings=wide)


@pytest.mark.slow
def test_the_command_adds_numbers_and_a_picture(tmp_path, capsys):
    flags = ["--student", "embedded:student", "--teacher", "embedded:teacher"]
    flags += ["--data", "chain/test", "--size", "2", "--n", "1", "--max_new_tokens", "16"]
    flags += ["--min_problems", "2", "--window", "4", "--out", str(tmp_path / "out")]
    assert main(flags) == 0
    found = json.loads((tmp_path / "out" / "diagnose.json").read_text())["near_future"]
    assert set(found["positions"]) == set(KINDS)
    assert (tmp_path / "out" / "near_future.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "false alarms" in printed and "near_future.png" in printed.replace("\n", "")
    left, right = draw(found).axes
    assert len(left.collections) == 3 and len(right.lines) == 4
    assert main([*flags, "--window", "-1"]) == 2
    assert "--window=-1 must be 0 (none) or more" in capsys.readouterr().err
