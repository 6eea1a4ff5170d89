"""Run in a process with 8 fake devices: chunked losses on a 2x2x2 mesh, in several blocks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

import models
from distill.losses import chunked
from distill.losses.divergence import jsd
from distill.train.sharding import make_mesh
from experiments.plan.hlo import program_cost

ROWS, LENGTH, VOCAB, HIDDEN, WIDTH = 8, 7, 32, 16, 24
CONFIG = models.ModelConfig("qwen3", VOCAB, HIDDEN, 8, 1, 2, 1, 4)


def function(p, q, tokens):
    log_prob = chunked.log_probs(p, tokens)
    return jsd(q, p, 0.3) - log_prob, {"log_prob": log_prob}


def main() -> None:
    assert len(jax.devices()) == 8
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.normal(0, 1, shape), jnp.float32)

    hidden, head = normal(ROWS, LENGTH, HIDDEN), normal(VOCAB, HIDDEN) / 4
    teacher_hidden, teacher_head = normal(ROWS, LENGTH, WIDTH), normal(VOCAB, WIDTH) / 4
    weights = normal(ROWS, LENGTH) * (rng.random((ROWS, LENGTH)) < 0.7)
    tokens = jnp.asarray(rng.integers(0, VOCAB, (ROWS, LENGTH)))

    def run(mesh, place):
        config = CONFIG.replace(mesh=mesh)

        @jax.jit
        def gradients(hidden, head, teacher_hidden, teacher_head, weights, tokens):
            def loss(hidden, head):
                return chunked.weighted_sum(
                    function,
                    chunked.Readout(hidden, head, config),
                    chunked.Readout(teacher_hidden, teacher_head, config),
                    weights,
                    tokens,
                )

            fn = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
            return *fn(hidden, head), loss(hidden, head)

        rows = PartitionSpec(("data", "fsdp"))
        table = PartitionSpec("tensor", "fsdp")
        arrays = hidden, head, teacher_hidden, teacher_head, weights, tokens
        places = rows, table, rows, table, rows, rows
        placed = [place(x, p) for x, p in zip(arrays, places, strict=True)]
        return gradients(*placed), gradients.lower(*placed).compile().as_text()

    # On the mesh a device has 2 rows: blocks of 2 positions; on one device, 8: all 7 at once.
    for elements in (2 * VOCAB * 2, 2**20):
        chunked._BLOCK_ELEMENTS = 2**20
        single, _ = run(None, lambda x, _: x)
        chunked._BLOCK_ELEMENTS = elements
        several, text = run(mesh, lambda x, spec: jax.device_put(x, NamedSharding(mesh, spec)))
        for (path, a), b in zip(
            jax.tree_util.tree_leaves_with_path(single), jax.tree.leaves(several), strict=True
        ):
            a, b = np.asarray(a), np.asarray(b)
            error = np.abs(a - b).max() / np.abs(a).max()
            assert error < 1e-5, (jax.tree_util.keystr(path), error)
        assert several[1][1].sharding.spec == PartitionSpec("tensor", "fsdp")
        # The head's gradient is summed over devices once, not for every block.
        sent = [sum(program_cost(text, n).sent.values()) for n in (1, 2)]
        assert sent[0] > 4 * VOCAB // 2 * HIDDEN
        assert sent[1] - sent[0] < 4 * VOCAB // 2 * HIDDEN, sent
    print("equal")


if __name__ == "__main__":
    jax.config.update("jax_default_matmul_precision", "highest")
    main()
