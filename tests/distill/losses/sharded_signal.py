"""Run in a process with 8 fake devices: signals on logits that lie on a 2x2x2 mesh."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from distill.losses.signal import Signal, token_divergence
from distill.train.sharding import make_mesh

SIGNALS = (
    Signal("jsd", 0.3),
    *(Signal("jsd", 0.3, "top_k", 3, of) for of in ("student", "teacher", "union")),
    Signal("forward_kl", support="sampled", form="advantage"),
)


def main() -> None:
    assert len(jax.devices()) == 8
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    assert mesh is not None
    rng = np.random.default_rng(0)
    teacher, student = (jnp.asarray(x, jnp.float32) for x in rng.normal(0, 2, (2, 8, 3, 16)))
    tokens, weights = jnp.asarray(rng.integers(0, 16, (8, 3))), jnp.ones((8, 3))
    rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    logits = NamedSharding(mesh, PartitionSpec(("data", "fsdp"), None, "tensor"))
    for signal in SIGNALS:

        def loss(student, teacher, tokens, weights, signal=signal):
            per_token = token_divergence(signal, teacher, student, tokens, weights)
            return jnp.sum(weights * per_token)

        fn = jax.jit(jax.value_and_grad(loss))
        single = fn(student, teacher, tokens, weights)
        several = fn(
            *(jax.device_put(x, logits) for x in (student, teacher)),
            *(jax.device_put(x, rows) for x in (tokens, weights)),
        )
        np.testing.assert_allclose(several[0], single[0], rtol=1e-5)
        np.testing.assert_allclose(several[1], single[1], rtol=1e-5, atol=1e-6)
    print("equal")


if __name__ == "__main__":
    main()
