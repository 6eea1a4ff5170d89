"""Compares a 2x2x2 mesh of eight CPU devices with one device, and prints what differs as JSON.

Run by `test_sharding.py` in a process of its own, since the number of devices is fixed when jax
starts: `python sharded_models.py <directory with checkpoints>`.
"""

import functools
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from models import forward, generate, load_pretrained, shardings


def named(tree) -> dict:
    leaves = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in leaves}


def difference(ours, expected) -> float:
    """Largest difference relative to the largest value."""
    ours, expected = np.asarray(ours, np.float64), np.asarray(expected, np.float64)
    return float(np.max(np.abs(ours - expected)) / np.max(np.abs(expected)))


@functools.partial(jax.jit, static_argnums=1)
def loss_and_gradients(params, config, tokens, weights, positions, segments):
    """A weighted cross-entropy, as in distillation; its logits; and its gradients."""

    def loss(params):
        logits = forward(params, config, tokens, positions, segments)
        log_probs = jax.nn.log_softmax(logits[:, :-1])
        chosen = jnp.take_along_axis(log_probs, tokens[:, 1:, None], axis=-1)[..., 0]
        return -jnp.sum(chosen * weights[:, 1:]) / jnp.sum(weights[:, 1:]), logits

    return jax.value_and_grad(loss, has_aux=True)(params)


def compare(path: Path, mesh: jax.sharding.Mesh) -> dict:
    config, params = load_pretrained(path)
    meshed, split = load_pretrained(path, mesh=mesh)
    places = named(shardings(meshed, mesh))
    arrays = named(split)
    report = {
        "unequal": [n for n, x in named(params).items() if not np.array_equal(x, arrays[n])],
        "misplaced": [n for n, x in arrays.items() if x.sharding != places[n]],
        "whole": [n for n, x in arrays.items() if x.sharding.is_fully_replicated],
    }

    random = np.random.RandomState(0)
    batch = (
        random.randint(0, config.vocab_size, (8, 24)).astype(np.int32),
        random.rand(8, 24).astype(np.float32),
        np.broadcast_to(np.r_[np.arange(10), np.arange(14)], (8, 24)),
        np.broadcast_to(np.r_[[0] * 10, [1] * 14], (8, 24)),
    )
    rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    (loss, logits), gradients = loss_and_gradients(params, config, *batch)
    (loss_split, logits_split), gradients_split = loss_and_gradients(
        split, meshed, *jax.device_put(batch, rows)
    )
    report["loss"] = difference(loss_split, loss)
    report["logits"] = difference(logits_split, logits)
    gradients_split = named(gradients_split)
    report["gradients"] = {
        name: difference(gradients_split[name], expected)
        for name, expected in named(gradients).items()
    }

    lengths = np.array([5, 1, 3, 5, 2, 4, 1, 5], np.int32)
    # Cached decoding shards alike in all families: one of each head suffices.
    for temperature in (0.0, 1.0) if path.name in ("qwen3", "qwen2_tied") else ():
        arguments = (batch[0][:, :5], lengths, jax.random.key(0), 12, temperature)
        one = generate(params, config, *arguments)
        eight = generate(split, meshed, *arguments)
        same = np.array_equal(one.tokens_BxN, eight.tokens_BxN)
        report[f"same tokens at {temperature}"] = same
        report[f"log-probs at {temperature}"] = difference(eight.log_probs_BxN, one.log_probs_BxN)
    return report


if __name__ == "__main__":
    jax.config.update("jax_default_matmul_precision", "highest")
    assert len(jax.devices()) == 8, jax.devices()
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    directories = sorted(Path(sys.argv[1]).iterdir())
    print(json.dumps({path.name: compare(path, mesh) for path in directories}))
