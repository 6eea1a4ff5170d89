"""Ratios, targets and the report of `experiments.bench`."""

from __future__ import annotations

import pytest

from experiments.bench.order import PLAN, measurements
from experiments.bench.processes import Result
from experiments.bench.ratios import Spread, number, ratio, spread
from experiments.bench.table import markdown, targets_table
from experiments.bench.targets import TARGETS, Target, faster_than, memory_of, times
from experiments.bench.workloads import MODELS, PEERS, WHAT, workload

ABOUT = {
    "commit": "abc",
    "dirty": True,
    "cpu": "a processor",
    "cores": 2,
    "device": "cpu",
    "versions": {"jax": "1"},
}


def result(who: str, variant: str, seconds: list[float], what: str = "train", **fields) -> Result:
    return Result(what, who, variant, seconds=seconds, **fields)


def test_spread_is_median_least_and_most():
    assert spread([3.0, 1.0, 2.0, 10.0, 0.5]) == Spread(2.0, 0.5, 10.0)


def test_ratios_are_taken_round_by_round():
    # The machine was half as fast in the second round: the ratio does not notice.
    assert ratio([2.0, 4.0, 2.0], [1.0, 2.0, 1.0]) == Spread(2.0, 2.0, 2.0)
    assert ratio([1.0, 9.0, 4.0], [1.0, 3.0, 1.0]) == Spread(3.0, 1.0, 4.0)


def test_ratio_of_unequal_counts_is_that_of_medians():
    assert ratio([60.0], [2.0, 3.0, 4.0]) == Spread(20.0, 20.0, 20.0)


@pytest.mark.parametrize(
    ("x", "text"), [(1234.4, "1234"), (12.34, "12.3"), (1.234, "1.23"), (0.1234, "0.123"), (0, "0.000")]
)  # fmt: skip
def test_numbers_have_three_digits(x, text):
    assert number(x) == text


def test_best_peer_is_the_one_with_the_least_median():
    results = [
        result("ours", "", [1.0, 1.0, 1.0]),
        result("hf", "static", [3.0, 3.0, 0.1]),
        result("hf", "dynamic", [2.0, 2.0, 2.0]),
        result("tunix", "", [4.0, 4.0, 4.0]),
    ]
    assert faster_than(("hf", None), ("tunix", ""))(results) == Spread(2.0, 2.0, 2.0)
    assert faster_than(("tunix", ""))(results) == Spread(4.0, 4.0, 4.0)


def test_peers_that_did_not_run_give_no_number():
    results = [result("ours", "", [1.0]), result("hf", "static", [], state="absent")]
    assert faster_than(("hf", None))(results) is None
    assert times("ours", "parts")(results) is None
    assert memory_of("hf")(results) is None


def test_memory_is_a_share():
    results = [
        result("ours", "", [1.0], peak_mib=700.0),
        result("tunix", "", [1.0], peak_mib=1000.0),
    ]
    assert memory_of("tunix")(results) == Spread(0.7, 0.7, 0.7)


@pytest.mark.parametrize(
    ("at_most", "value", "missed"),
    [(False, 1.15, 0.0), (False, 0.92, 0.2), (True, 1.15, 0.0), (True, 1.38, 0.2)],
)
def test_missed_by_is_a_share_of_the_bound(at_most, value, missed):
    target = Target("train", "", {"any": 1.15}, times("ours", "x"), at_most=at_most)
    assert target.missed_by(value, 1.15) == pytest.approx(missed)


def test_target_table_says_reached_missed_and_not_measured():
    results = [
        result("ours", "", [1.0, 1.0], peak_mib=600.0),
        result("tunix", "", [1.04, 1.04], peak_mib=1000.0),
        result("torch", "eager", [], state="absent", message="No module named 'torch'"),
    ]
    rows = targets_table(results, "tiny")[2:]
    assert rows == [
        "| train | speed, Tunix = 1 | >= 1.30 | 1.04 (1.04 to 1.04) | missed by 20 % |",
        "| train | speed, eager torch = 1 | >= 0.800 | - | not measured |",
        "| train | peak resident memory, Tunix = 1 | <= 0.700 | 0.600 (0.600 to 0.600) | reached |",
    ]
    # Other bounds, or none, for other models.
    assert ">= 1.10" in targets_table(results, "small")[2]
    assert [row.split("|")[2].strip() for row in targets_table(results, "elsewhere")[2:]] == [
        "peak resident memory, Tunix = 1"
    ]


def test_report_names_what_is_absent_and_what_failed():
    results = [
        result("ours", "", [2.0], facts={"tokens": 100, "list": [1.0, 2.0]}, first_seconds=5.0),
        result("torch", "eager", [], state="absent", message="No module named 'torch'"),
        result("tunix", "", [], state="failed", message="out of memory"),
    ]
    text = markdown(results, "tiny", ABOUT)
    assert "| torch (eager) | absent |" in text
    assert "- train, torch (eager): absent. No module named 'torch'" in text
    assert "- train, tunix: failed. out of memory" in text
    assert "a processor, 2 cores" in text and "`abc` with changes" in text
    row = next(line for line in text.splitlines() if line.startswith("| ours |"))
    assert row.split("|")[4].strip() == "50.0"  # tokens per second


def test_every_measurement_has_targets_and_ours_first():
    assert set(PLAN) == set(WHAT) == {target.what for target in TARGETS}
    for what, processes in PLAN.items():
        assert processes[0][0] == "ours"
        assert measurements(what, []) == [p for p in processes if p[0] == "ours"]
        assert measurements(what, PEERS) == list(processes)
    assert {who for p in PLAN.values() for who, _ in p} == {"ours", *PEERS}


def test_shapes_are_those_of_the_issue():
    for name in ("tiny", "small", "a/directory"):
        w = workload(name)
        assert (w.decode.batch, w.decode.prompt, w.decode.new) == (16, 64, 256)
        assert (w.train.batch, w.train.prompt, w.train.new) == (8, 64, 192)
        assert (w.loss.tokens, w.loss.hidden, w.loss.vocab_size) == (8192, 1024, 151_936)
        assert w.motab.prompts == 64
    tiny, small = MODELS["tiny"], MODELS["small"]
    assert (tiny.num_layers, tiny.hidden_size, tiny.intermediate_size) == (4, 256, 768)
    assert (tiny.num_heads, tiny.num_kv_heads, tiny.head_dim, tiny.vocab_size) == (4, 2, 64, 4096)
    assert (small.num_layers, small.hidden_size, small.intermediate_size) == (8, 512, 1536)
    assert (small.num_heads, small.num_kv_heads, small.vocab_size) == (8, 4, 32000)
