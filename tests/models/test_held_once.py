"""Weights are held once: as a list of layers, and in 16 bits without float32 copies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from tiny_models import tiny_config, tiny_params

from models import forward, generate, load_pretrained, save_pretrained
from models.decoding.decode import decode, init_cache, unstack
from models.decoding.sampling import Sampling
from models.decoding.slots import Rows
from models.transformer import product


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    config = tiny_config("qwen2")
    path = tmp_path_factory.mktemp("model")
    save_pretrained(tiny_params(config), config, path)
    return path


def test_a_list_of_layers_holds_the_same_arrays(saved):
    config, stacked = load_pretrained(saved)
    _, listed = load_pretrained(saved, stacked=False)
    assert isinstance(listed["layers"], list) and len(listed["layers"]) == config.num_layers
    jax.tree.map(np.testing.assert_array_equal, listed, unstack(stacked, config))
    assert unstack(listed, config) is listed  # nothing is copied


def test_a_list_of_layers_writes_and_reads_the_same(saved, prompts):
    config, stacked = load_pretrained(saved)
    _, listed = load_pretrained(saved, stacked=False)
    key = jax.random.key(0)
    some, others = (generate(p, config, *prompts, key, 8) for p in (stacked, listed))
    jax.tree.map(np.testing.assert_array_equal, some, others)
    one, other = (forward(p, config, prompts[0]) for p in (stacked, listed))
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_mesh_takes_stacked_layers_alone(saved):
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), ("data", "fsdp", "tensor"))
    with pytest.raises(ValueError, match="stacked=False with a mesh"):
        load_pretrained(saved, mesh=mesh, stacked=False)


@pytest.mark.parametrize("batch", [1, 4])
def test_16_bit_weights_are_not_copied_to_float32(batch):
    """What decoding holds besides its arguments is less than the layers would be in float32."""
    config = tiny_config("qwen2").replace(
        dtype="bfloat16", hidden_size=256, intermediate_size=1024, num_layers=6
    )
    params = unstack(tiny_params(config), config)
    rows = Rows(
        prompts_BxP=jnp.ones((batch, 2), jnp.int32),
        lengths_B=jnp.full(batch, 2),
        keys_B=jax.random.split(jax.random.key(0), batch),
        ids_B=jnp.arange(batch),
        budgets_B=jnp.full(batch, 8),
    )

    def write(params, cache):
        return decode(params, config, cache, rows.cursor(), rows.keys_B, 8, Sampling(0.0), (0,))

    program = jax.jit(write).lower(params, init_cache(config, batch, 32)).compile()
    layers = sum(x.size for x in jax.tree.leaves(params["layers"]))
    assert program.memory_analysis().temp_size_in_bytes < layers


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_a_bfloat16_product_is_the_float32_one_rounded(rows):
    config = tiny_config("qwen2").replace(dtype="bfloat16")
    random = np.random.default_rng(0)
    x, matrix = (
        jnp.asarray(random.normal(size=shape), jnp.bfloat16) for shape in ((rows, 48), (48, 7))
    )
    exact = np.asarray(x, np.float64) @ np.asarray(matrix, np.float64)
    out = product(x, matrix, config)
    assert out.dtype == jnp.bfloat16
    # The unit roundoff of bfloat16, and what float32 sums lose.
    np.testing.assert_allclose(np.asarray(out, np.float64), exact, rtol=2**-8, atol=1e-5)
