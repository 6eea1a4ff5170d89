"""A small training state, and what a directory of checkpoints holds."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from distill.train.state import create_state


def optimizer():
    schedule = optax.warmup_cosine_decay_schedule(0.0, 1e-2, 3, 20)
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.masked(optax.add_decayed_weights(0.1), {"w": True, "layers": False}),
        optax.adam(schedule, mu_dtype=jnp.bfloat16),
    )


def new_state(seed=0):
    key = jax.random.key(seed)
    params = {
        "w": jax.random.normal(key, (8, 4)),
        "layers": {"q": jax.random.normal(key, (2, 4, 4), jnp.bfloat16), "empty": {}},
    }
    method = {
        "rollout": jax.tree.map(jnp.copy, params),
        "nothing": {},
        "flags": jnp.array([True, False]),
        "ids": jnp.arange(5, dtype=jnp.uint32),
        "odd": jnp.array([jnp.nan, -0.0, jnp.inf, 1e-45]),
    }
    return create_state(params, optimizer(), method)


@jax.jit
def update(state, noise):
    grads = jax.tree.map(lambda p: (p * 0.3 + noise).astype(p.dtype), state.params)
    changes, opt_state = optimizer().update(grads, state.opt_state, state.params)
    return state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, changes),
        opt_state=opt_state,
    )


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        assert x.shape == y.shape
        assert x.sharding == y.sharding
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def on_disk(directory):
    return sorted(int(p.name) for p in Path(directory).iterdir() if p.name.isdigit())
