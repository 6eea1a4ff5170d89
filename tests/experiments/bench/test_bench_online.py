"""Methods timed in turns: rounds, order and ratios."""

from __future__ import annotations

import numpy as np
import pytest

from configs import opd
from experiments.bench.online_steps import print_seconds, time_steps
from experiments.methods import make_recipe
from experiments.methods.online import Online


def test_ratios_are_taken_round_by_round(capsys):
    # The machine is half as fast in the second round, which tells nothing of the methods.
    print_seconds({"a": [1.0, 2.0, 1.0], "b": [1.5, 3.0, 1.5]}, "a")
    _, a, b, ratio = capsys.readouterr().out.splitlines()
    assert a == "a: 1000.0 ms per step (1000.0 to 2000.0)"
    assert b == "b: 1500.0 ms per step (1500.0 to 3000.0)"
    assert ratio == "b / a: 1.500 (middle half 1.500 to 1.500)"


@pytest.mark.slow
def test_methods_take_turns_on_the_same_batches(monkeypatch):
    configs = {"one": opd.get_config("smoke"), "other": opd.get_config("smoke")}
    seen = []
    step = Online.step

    def recording(self, state, batch, number):
        seen.append((self, number, np.array(batch.sample_ids_B)))
        return step(self, state, batch, number)

    monkeypatch.setattr(Online, "step", recording)
    seconds = time_steps(configs, make_recipe, warm_up=1, steps=2, rounds=2)
    assert all(len(x) == 2 and min(x) > 0 for x in seconds.values())
    first, second = dict.fromkeys(method for method, *_ in seen)
    turns = [(method is first, number) for method, number, _ in seen]
    warm_up = [(True, 0), (False, 0)]
    rounds = [
        (False, 1),
        (False, 2),
        (True, 1),
        (True, 2),
        (True, 3),
        (True, 4),
        (False, 3),
        (False, 4),
    ]
    assert turns == warm_up + rounds
    for method in (first, second):
        assert [n for m, n, _ in seen if m is method] == [0, 1, 2, 3, 4]
    ids = [{n: x for m, n, x in seen if m is method} for method in (first, second)]
    for number in range(5):
        np.testing.assert_array_equal(ids[0][number], ids[1][number])
