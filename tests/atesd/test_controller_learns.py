"""The controller alone, in environments whose best exposure is known.

Numbers are means over 20 seeds, H = 5, L = 20, Adam 3e-3, measured at one policy update per four
decisions where nothing else is said. The start is 0.5.
"""

from __future__ import annotations

import numpy as np
import pytest

from atesd.settings import ControllerSettings

from .environments import Environment, simulate

ENVIRONMENTS = {
    "0.2": Environment(0.2, 0.2),
    "0.5": Environment(0.5, 0.5),
    "0.8": Environment(0.8, 0.8),
    "upside down": Environment(0.2, 0.2, gain=-1e-2, grounding=-0.5),
    "no reward": Environment(0.2, 0.2, gain=0.0, grounding=0.0),
    "noise": Environment(0.2, 0.2, gain=0.0, grounding=0.0, noise=0.1),
    "drifting": Environment(0.2, 0.8),
    "delayed": Environment(0.2, 0.2, delay=15),
}
DECISIONS = 800


@pytest.fixture(scope="module")
def means():
    """Policy means [seeds, decisions] by environment."""
    runs = simulate(ControllerSettings(), list(ENVIRONMENTS.values()), DECISIONS)
    return dict(zip(ENVIRONMENTS, runs, strict=True))


@pytest.mark.parametrize("best", [0.2, 0.5, 0.8])
def test_finds_the_best_exposure_within_300_decisions_and_stays(means, best):
    """Measured: within 0.01 after 300 decisions; later it overshoots by up to 0.06."""
    run = means[str(best)]
    assert np.all(np.abs(run[:, 300:].mean(axis=0) - best) < 0.08)
    assert np.all(np.abs(run[:, 300:] - best) < 0.15)  # every seed


def test_moves_away_from_the_best_exposure_when_the_reward_is_upside_down(means):
    """Measured: 0.79 after 300 decisions, 0.91 after 800."""
    run = means["upside down"]
    assert run[:, 300].mean() > 0.7 and np.all(run[:, -1] > 0.85)


def test_stands_still_without_a_reward(means):
    """Measured: moves by less than 1e-6; what does move is the entropy, to its target."""
    assert np.all(np.abs(means["no reward"] - 0.5) < 1e-4)


def test_wanders_without_direction_when_the_reward_is_noise(means):
    """Measured after 800 decisions: mean 0.47, standard deviation over seeds 0.07."""
    run = means["noise"]
    assert np.all(np.abs(run.mean(axis=0) - 0.5) < 0.07)
    assert np.all(np.abs(run - 0.5) < 0.3)


def test_follows_a_best_exposure_that_drifts(means):
    """From 0.2 to 0.8 within 800 decisions. Measured: 0.09 behind at half time, 0.05 later."""
    lag = np.abs(means["drifting"].mean(axis=0) - np.linspace(0.2, 0.8, DECISIONS))
    assert np.all(lag[400:] < 0.13) and np.all(lag[600:] < 0.09)


def test_learns_of_effects_that_come_at_the_end_of_the_window(means):
    """Effects 15 updates late end with the window of 20. Measured: 0.45 after 200 decisions, 0.32
    after 800: slow, because the mean over B = 4 overlapping decisions, which is the baseline,
    contains later decisions' shares in the same effect."""
    run = means["delayed"].mean(axis=0)
    assert run[200] < 0.48 and run[-1] < 0.38


@pytest.mark.slow
def test_a_larger_batch_learns_of_late_effects_within_1200_decisions():
    """B = 16. Measured: 0.19 after 1200 decisions, that is, 75 policy updates."""
    settings = ControllerSettings(decisions_per_update=16)
    run = simulate(settings, [ENVIRONMENTS["delayed"]], 1201)[0]
    assert abs(run[:, -1].mean() - 0.2) < 0.06 and np.all(np.abs(run[:, -1] - 0.2) < 0.12)
