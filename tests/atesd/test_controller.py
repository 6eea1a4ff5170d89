"""The controller from the first batch to the last: NumPy's history, interruptions, other policies."""

from __future__ import annotations

import functools

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atesd.control import beta
from atesd.control.controller import decide, init_controller, is_decision, observe
from atesd.settings import ControllerSettings

from . import controller_reference as reference

OBSERVED = ("loss", "mismatch", "log_prob", "confidence")
PROBED = ("probe_nll", "probe_loss")


def random_history(steps, groups, seed=0):
    rng = np.random.default_rng(seed)
    history = {name: rng.random((steps, groups)) for name in (*OBSERVED, *PROBED)}
    return history | {"log_prob": -history["log_prob"]}


def batch(settings, state, step, steps, row):
    state = decide(state, settings, step, steps, row["probe_nll"], row["probe_loss"])
    return observe(state, settings, step, *(row[name] for name in OBSERVED))


@functools.cache
def jitted(settings):
    return jax.jit(functools.partial(batch, settings))


def rows(history, dtype=np.float32):
    steps = len(history["loss"])
    return [{name: x[k].astype(dtype) for name, x in history.items()} for k in range(steps)]


def train(settings, history, state=None, first=0):
    """States and metrics after every batch from `first` on."""
    state = init_controller(jax.random.key(7), settings) if state is None else state
    records = []
    for step, row in list(enumerate(rows(history)))[first:]:
        state, metrics = jitted(settings)(state, step, len(history["loss"]), row)
        records.append((state, metrics))
    return records


CASES = {
    "defaults": (ControllerSettings(entropy_warmup=31), 75),
    "groups, L < H": (
        ControllerSettings(
            groups=3, look_ahead=3, hold=5, decisions_per_update=2, entropy_warmup=0,
            entropy_weight=1.0, hidden=8, learning_rate=0.05,
        ),
        52,
    ),
    "probe, raw": (
        ControllerSettings(
            reward_loss="probe", standardise_reward=False, look_ahead=7, hold=3,
            decisions_per_update=3, discount=0.8, lambda_gt=2.0, hidden=8, ema_decay=0.5,
        ),
        50,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_follows_a_reference_that_recomputes_everything_from_the_history(case):
    settings, steps = CASES[case]
    history = random_history(steps, settings.groups)
    with jax.enable_x64(True):
        state = init_controller(jax.random.key(7), settings)
        params = jax.tree.map(np.asarray, state.params)
        key = jax.random.wrap_key_data(state.key_data)
        records = []
        for step, row in enumerate(rows(history, np.float64)):
            state, metrics = jitted(settings)(state, step, steps, row)
            records.append((jax.device_get(state), jax.device_get(metrics)))
        assert state.exposure_G.dtype == np.float64

        def exposure_of(index, a, b):
            drawn = beta.sample(jax.random.fold_in(key, index), jnp.asarray(a), jnp.asarray(b))
            return np.clip(np.asarray(drawn), settings.exposure_min, settings.exposure_max)

        expected = reference.run(settings, params, steps, history, exposure_of)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-8)
    for (state, metrics), wanted in zip(records, expected, strict=True):
        close(state.exposure_G, wanted["exposure"])
        close(state.shape_a_G, wanted["a"])
        close(state.shape_b_G, wanted["b"])
        close(state.gain_G, wanted["gain"])
        close(state.grounding_G, wanted["grounding"])
        close(state.reward_G, wanted["reward"])
        close(metrics["decision_reward"], np.mean(wanted["reward"]))
        close(metrics["controller_loss"], wanted["loss"])
        assert metrics["decisions_completed"] == wanted["completed"]
        assert metrics["controller_updates"] == wanted["updates"]
        jax.tree.map(close, state.params, wanted["params"])
        slot = (state.decisions - 1) % len(state.pending.start_C)
        close(state.pending.features_CxGxF[slot], wanted["features"])
    assert any(name.endswith("_0") for name in metrics) == (settings.groups > 1)
    done = (steps - 1 - settings.look_ahead) // settings.hold + 1
    assert expected[-1]["completed"] == done
    assert expected[-1]["updates"] == done // settings.decisions_per_update >= 2


QUICK = ControllerSettings(
    groups=3, look_ahead=7, hold=3, decisions_per_update=2, hidden=4, learning_rate=0.1
)


def test_split_anywhere_and_restored_it_goes_on_bit_by_bit():
    steps = 24
    history = random_history(steps, 3)
    whole = train(QUICK, history)
    end = jax.tree.leaves(jax.device_get(whole[-1]))
    assert int(whole[-1][0].updates) >= 2
    blank = jax.device_get(init_controller(jax.random.key(0), QUICK))
    for split in range(1, steps):
        saved = flax.serialization.to_bytes(jax.device_get(whole[split - 1][0]))
        state = jax.tree.map(jnp.asarray, flax.serialization.from_bytes(blank, saved))
        resumed = jax.tree.leaves(jax.device_get(train(QUICK, history, state, split)[-1]))
        for x, y in zip(end, resumed, strict=True):
            np.testing.assert_array_equal(x, y)


def test_other_keys_draw_other_exposures():
    draws = set()
    for seed in range(5):
        state = init_controller(jax.random.key(seed), QUICK)
        state, _ = train(QUICK, random_history(1, 3), state)[0]
        draws |= set(np.asarray(state.exposure_G).tolist())
    assert len(draws) == 15  # nor do groups share theirs


def test_compiles_once():
    state, row = init_controller(jax.random.key(0), QUICK), rows(random_history(1, 3))[0]
    run = jax.jit(functools.partial(batch, QUICK))
    for step in range(50):
        state, _ = run(state, step, 100 + step, row)
    assert run._cache_size() == 1
    assert int(state.updates) >= 2


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_batches_leave_everything_finite(bad):
    steps = 24
    history = random_history(steps, 3)
    for name in OBSERVED:
        history[name][[0, 7, 8, 20]] = bad
    for name in PROBED:
        history[name][[0, 6]] = bad
    history["mismatch"][11, 1] = bad  # one group only
    state, metrics = train(QUICK, history)[-1]
    for leaf in jax.tree.leaves(jax.device_get((state, metrics))):
        assert np.all(np.isfinite(leaf))
    assert int(metrics["observations_skipped"]) == 5
    assert int(metrics["controller_updates"]) >= 2
    assert int(metrics["decisions_completed"]) == 6  # no decision is lost


def test_moments_that_are_spoilt_move_no_policy():
    """Rewards and gradients are finite; what the update would leave is not."""
    history = random_history(24, 3)
    start = init_controller(jax.random.key(7), QUICK)
    spoilt = jax.tree.map(
        lambda x: x * jnp.nan if jnp.issubdtype(x.dtype, jnp.floating) else x, start.opt_state
    )
    state, metrics = train(QUICK, history, start.replace(opt_state=spoilt))[-1]
    assert int(metrics["controller_updates"]) >= 2
    jax.tree.map(np.testing.assert_array_equal, state.params, start.params)


def test_metrics_of_a_held_decision():
    history = random_history(12, 3)
    records = train(QUICK, history)
    first = {k: float(v) for k, v in records[0][1].items()}
    assert (
        first["decision_reward"]
        == first["gain"]
        == first["grounding"]
        == first["controller_loss"]
        == 0
    )
    np.testing.assert_allclose(first["beta_a"], 1 + np.log(2), rtol=1e-5)
    entropy = reference.entropy(1 + np.log(2), 1 + np.log(2))
    np.testing.assert_allclose(first["controller_entropy_2"], entropy, atol=1e-5)
    for step in range(12):
        state, metrics = records[step]
        held, _ = records[step - step % 3]
        np.testing.assert_array_equal(state.exposure_G, held.exposure_G)
        np.testing.assert_allclose(
            [metrics[f"exposure_{g}"] for g in range(3)], held.exposure_G, rtol=1e-6
        )
        np.testing.assert_allclose(metrics["exposure"], np.mean(held.exposure_G), rtol=1e-6)


def test_the_probe_is_held_between_decisions():
    history = random_history(6, 3)
    for step, (state, _) in enumerate(train(QUICK, history)):
        np.testing.assert_allclose(state.probe_nll_G, history["probe_nll"][step - step % 3])
        np.testing.assert_allclose(state.probe_loss_G, history["probe_loss"][step - step % 3])


def test_decisions_fall_on_multiples_of_hold():
    found = is_decision(ControllerSettings(hold=3), np.arange(7))
    assert found.tolist() == [True, False, False, True, False, False, True]


def exposures_of(settings, steps=12):
    records = train(settings, random_history(steps, settings.groups))
    state, metrics = records[-1]
    assert int(state.decisions_completed) == 0 and np.all(np.asarray(state.pending.start_C) == -1)
    assert {name.split("_")[0] for name in metrics} == {"exposure", "observations"}
    return np.array([state.exposure_G for state, _ in records])


@pytest.mark.parametrize("exposure", [0.0, 0.3, 1.0])
def test_fixed_is_never_clipped(exposure):
    settings = ControllerSettings(policy="fixed", fixed=exposure)
    assert np.all(exposures_of(settings) == np.float32(exposure))


def test_a_schedule_is_followed_at_every_step():
    settings = ControllerSettings(policy="schedule", schedule=((0, 1.0), (4, 0.0), (8, 0.5)))
    expected = [1, 0.75, 0.5, 0.25, 0, 0.125, 0.25, 0.375, 0.5, 0.5, 0.5, 0.5]
    np.testing.assert_allclose(exposures_of(settings)[:, 0], expected, rtol=1e-6)


def test_random_is_uniform_on_its_range_and_held():
    settings = ControllerSettings(
        policy="random", hold=2, groups=3, exposure_min=0.2, exposure_max=0.6
    )
    drawn = exposures_of(settings, steps=400)
    np.testing.assert_array_equal(drawn[::2], drawn[1::2])
    values = np.sort(drawn[::2].ravel())
    assert len(np.unique(values)) > 590
    assert values[0] > 0.2 and values[-1] < 0.6
    np.testing.assert_allclose(values, np.linspace(0.2, 0.6, 600), atol=0.03)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"policy": "best"}, r"controller.policy='best': choose one of"),
        ({"reward_loss": "x"}, r"controller.reward_loss='x': choose one of"),
        ({"fixed": 1.1}, r"controller.fixed=1.1 must lie in \[0, 1\]"),
        ({"hold": 0}, r"controller.hold=0 must be at least 1"),
        ({"look_ahead": 0}, r"controller.look_ahead=0 must be at least 1"),
        ({"decisions_per_update": 1}, r"controller.decisions_per_update=1 must be at least 2"),
        ({"hidden": 0}, r"controller.hidden=0"),
        ({"groups": 0}, r"controller.groups=0"),
        ({"lambda_gt": -1}, r"controller.lambda_gt=-1"),
        ({"entropy_weight": -1}, r"controller.entropy_weight=-1"),
        ({"entropy_warmup": -1}, r"controller.entropy_warmup=-1"),
        ({"learning_rate": 0}, r"controller.learning_rate=0 must be above 0"),
        ({"discount": 0}, r"controller.discount=0 must lie in"),
        ({"discount": 1.1}, r"controller.discount=1.1 must lie in"),
        ({"ema_decay": 1}, r"controller.ema_decay=1 must lie in"),
        ({"exposure_min": 0.95}, r"controller.exposure_min=0.95 .* must not be empty"),
        ({"exposure_max": 1.5}, r"controller.exposure_max=1.5"),
        ({"exposure_max": 1}, r"log-density is infinite at 0 and 1"),
        ({"reward_loss": "probe", "look_ahead": 4}, r"no decrease would ever be seen"),
        ({"policy": "schedule"}, r"controller.schedule=\(\): give \(step, exposure\) points"),
        ({"policy": "schedule", "schedule": ((1, 0.5),)}, r"the first of them 0"),
        ({"policy": "schedule", "schedule": ((0, 1), (0, 0))}, r"increasing steps"),
        ({"policy": "schedule", "schedule": ((0, 2.0),)}, r"every exposure must lie in \[0, 1\]"),
        ({"schedule": ((0, 1.0),)}, r"nothing reads it"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ControllerSettings(**fields)


def test_settings_from_lists_are_hashable():
    settings = ControllerSettings(policy="schedule", schedule=[[0, 1], [10, 0]])
    assert hash(settings) == hash(
        ControllerSettings(policy="schedule", schedule=((0, 1.0), (10, 0.0)))
    )
    ControllerSettings(policy="random", exposure_min=0, exposure_max=1)  # no density to evaluate
