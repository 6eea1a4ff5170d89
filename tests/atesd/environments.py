"""Made-up trainings with a known best exposure, run through `decide` and `observe`."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from atesd.control import beta
from atesd.control.controller import decide, init_controller, observe

LONGEST_DELAY = 15


class Environment(NamedTuple):
    """An update at exposure a lowers the loss by gain (1 - 2 (a - best)^2), and the teacher's
    log-probability is -grounding (a - best)^2 plus noise.

    Attributes:
      best, best_at_end: best exposure at the first and the last step, linear between.
      gain, grounding: 0 makes the term constant, a negative sign turns it upside down.
      noise: standard deviation of what is added to the log-probability.
      delay: updates after which an exposure takes effect.
    """

    best: float
    best_at_end: float
    gain: float = 1e-2
    grounding: float = 0.5
    noise: float = 0.0
    delay: int = 0


def simulate(settings, environments, decisions, seeds=20):
    """Trains `seeds` controllers on each environment.

    Returns:
      The policy's mean exposure at every decision [environments, seeds, decisions].
    """
    columns = Environment(*(jnp.asarray(c) for c in zip(*environments, strict=True)))
    keys = jax.vmap(jax.random.key)(jnp.arange(seeds))
    runs = _runs(settings, decisions)(keys, columns)
    return np.asarray(runs)


@functools.cache
def _runs(settings, decisions):
    run = functools.partial(_run, settings, decisions)
    # Compiling takes ten times as long as running.
    return jax.jit(
        jax.vmap(jax.vmap(run, (0, None)), (None, 0)),
        compiler_options={"xla_backend_optimization_level": 0},
    )


def _run(settings, decisions, key, env):
    steps = decisions * settings.hold

    def batch(carry, step):
        state, loss, exposures_D, key = carry
        state = decide(state, settings, step, steps, 0.5, loss)
        exposures_D = jnp.concatenate([state.exposure_G, exposures_D[:-1]])
        share = jnp.maximum(step - env.delay, 0) / steps
        best = env.best + share * (env.best_at_end - env.best)
        error = jnp.square(exposures_D[env.delay] - best)
        key, noise_key = jax.random.split(key)
        log_prob = -env.grounding * error + env.noise * jax.random.normal(noise_key)
        state, _ = observe(state, settings, step, loss, 0.1, log_prob, 0.8)
        loss = loss - env.gain * (1 - 2 * error)  # of the next batch
        return (state, loss, exposures_D, key), None

    def hold(carry, decision):
        first = decision * settings.hold
        carry, _ = jax.lax.scan(batch, carry, first + jnp.arange(settings.hold))
        return carry, beta.mean(carry[0].shape_a_G, carry[0].shape_b_G)[0]

    init_key, noise_key = jax.random.split(key)
    carry = (
        init_controller(init_key, settings),
        jnp.ones(()),
        jnp.full(LONGEST_DELAY + 1, 0.5),
        noise_key,
    )
    return jax.lax.scan(hold, carry, jnp.arange(decisions))[1]
