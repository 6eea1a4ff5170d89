"""The policy's state against averages and standard deviations computed from whole histories."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atesd.control.features import READINGS, build, init_readings, num_features, read
from atesd.control.moments import add, divide, init_moments, std
from atesd.settings import ControllerSettings

from . import controller_reference as reference


@pytest.mark.parametrize("groups", [1, 3])
def test_readings_and_features_follow_the_whole_history(groups):
    rng = np.random.default_rng(0)
    history = rng.normal(size=(40, len(READINGS), groups)).astype(np.float32)
    readings, values = init_readings(groups), []
    read_all = jax.jit(lambda readings, x: read(readings, 0.9, **dict(zip(READINGS, x))))  # noqa: B905
    make = jax.jit(build)
    for step in range(40):
        readings = read_all(readings, history[step])
        averages = [
            reference.average(history[: step + 1, i], 0.9 if name != "confidence" else 0.0)
            for i, name in enumerate(READINGS)
        ]
        np.testing.assert_allclose(readings.values_GxR, np.transpose(averages), atol=1e-5)
        if step % 5 == 0:
            values.append(np.transpose(averages))
            readings, features = make(readings, step / 40)
            assert features.shape == (groups, num_features(ControllerSettings(groups=groups)))
            np.testing.assert_allclose(features[:, 0], step / 40, rtol=1e-6)
            for g in range(groups):
                expected = [
                    reference.standardised([v[g, i] for v in values]) for i in range(len(READINGS))
                ]
                np.testing.assert_allclose(features[g, 1:6], expected, atol=1e-4)
            if groups > 1:
                assert features[:, 6].tolist() == [-1, 0, 1]


def test_before_the_first_observations_all_readings_are_zero():
    readings = read(init_readings(1), 0.9, probe_nll=jnp.asarray([2.5]))
    readings, features = build(readings, 0.0)
    assert not np.any(features)
    assert readings.moments.count.tolist() == [[0, 0, 0, 1, 0]]
    readings = read(readings, 0.9, loss=jnp.asarray([7.0]))
    assert readings.values_GxR.tolist() == [[0, 7, 0, 2.5, 0]]  # the first observation as it is
    _, features = build(readings, 0.5)
    assert features.tolist() == [
        [0.5, 0, 0, 0, 0, 0]
    ]  # one decision saw a loss; the NLL stood still


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_left_out(bad):
    readings = read(init_readings(2), 0.9, loss=jnp.asarray([1.0, bad]))
    readings = read(readings, 0.9, loss=jnp.asarray([bad, bad]))
    readings = read(readings, 0.9, loss=jnp.asarray([2.0, 3.0]))
    np.testing.assert_allclose(readings.values_GxR[:, 1], [1.1, 3.0], rtol=1e-6)


def test_moments_equal_numpys_and_skip_what_is_invalid():
    rng = np.random.default_rng(1)
    x = rng.normal(100, 0.1, (50, 4)).astype(np.float32)
    valid = rng.random((50, 4)) < 0.6
    moments = init_moments(4)
    for row, ok in zip(x, valid, strict=True):
        moments = add(moments, jnp.where(ok, row, jnp.nan), ok)
    kept = [x[valid[:, i], i].astype(np.float64) for i in range(4)]
    np.testing.assert_allclose(moments.mean, [k.mean() for k in kept], rtol=1e-6)
    np.testing.assert_allclose(std(moments), [k.std() for k in kept], rtol=1e-3)


def test_a_constant_has_no_spread_however_it_rounds():
    moments = init_moments()
    for x in (0.3, np.nextafter(np.float32(0.3), np.float32(1)), 0.3):
        moments = add(moments, jnp.float32(x))
    assert float(std(moments)) == 0
    assert float(divide(jnp.float32(5), std(moments))) == 0
