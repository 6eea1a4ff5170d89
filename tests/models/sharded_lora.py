"""Compares adapters on a 2x2x2 mesh of eight CPU devices with one device; prints JSON.

Run by `test_lora.py` in a process of its own, since the number of devices is fixed when jax starts.
"""

import functools
import json

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from sharded_models import difference, loss_and_gradients, named
from tiny_models import tiny_config, tiny_params

import models
from distill.train.optimizer import OptimizerSettings, make_optimizer
from distill.train.sharding import state_shardings
from distill.train.state import create_state
from models.lora import is_adapter


def main() -> dict:
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    # A larger alpha makes the model so steep that rounding alone moves gradients by 1e-4.
    config = tiny_config(lora=models.LoraConfig(4, 2.0))
    meshed = config.replace(mesh=mesh)
    places = models.shardings(meshed, mesh)
    base = tiny_params(config.replace(lora=None))
    key = jax.random.key(0)
    one = models.add_adapters(base, config, key)
    split = models.add_adapters(jax.device_put(base, models.shardings(
        config.replace(lora=None), mesh
    )), meshed, key)  # fmt: skip
    places_of = named(places)
    report = {
        "unequal": [n for n, x in named(one).items() if not np.array_equal(x, named(split)[n])],
        "misplaced": [n for n, x in named(split).items() if x.sharding != places_of[n]],
    }
    # With B at zero A would have no gradient.
    full = tiny_params(config)
    one, split = full, jax.device_put(full, places)

    random = np.random.RandomState(0)
    batch = (
        random.randint(0, config.vocab_size, (8, 24)).astype(np.int32),
        random.rand(8, 24).astype(np.float32),
        np.broadcast_to(np.arange(24), (8, 24)),
        np.zeros((8, 24), np.int32),
    )
    rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    (loss, logits), gradients = loss_and_gradients(one, config, *batch)
    (loss_split, logits_split), gradients_split = loss_and_gradients(
        split, meshed, *jax.device_put(batch, rows)
    )
    report["loss"] = difference(loss_split, loss)
    report["logits"] = difference(logits_split, logits)
    both = {n: (x, named(gradients_split)[n]) for n, x in named(gradients).items()}
    adapters = [n for n in both if is_adapter(n)]
    report["adapters"] = adapters
    report["gradients"] = {n: difference(both[n][1], both[n][0]) for n in adapters}
    assert not any(np.any(x) for n, pair in both.items() if n not in adapters for x in pair)

    optimizer = make_optimizer(OptimizerSettings(), 5, models.trainable(split, meshed))
    create = functools.partial(create_state, optimizer=optimizer)
    where = state_shardings(jax.eval_shape(create, split), optimizer, meshed, mesh)
    state = jax.jit(create, out_shardings=where)(split)
    updates, opt_state = jax.jit(optimizer.update, out_shardings=(places, where.opt_state))(
        gradients_split, state.opt_state, state.params
    )
    report["updated"] = [n for n, x in named(updates).items() if np.any(x)]
    moments = {n: x for n, x in named(opt_state).items() if "_lora_" in n}
    report["moments"] = len(moments)
    report["moments misplaced"] = [
        n for n, x in moments.items() if x.sharding != places["layers"][n.split("/")[-1]]
    ]
    return report


if __name__ == "__main__":
    jax.config.update("jax_default_matmul_precision", "highest")
    assert len(jax.devices()) == 8, jax.devices()
    print(json.dumps(main()))
