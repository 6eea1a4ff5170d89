"""Rotary positions against the papers' formulas in NumPy, and against transformers, live."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import LinearRopeScaling, Llama3RopeScaling, ModelConfig, YarnRopeScaling
from models.huggingface import config_from_json
from models.rope import rope, rope_frequencies

# As released: DeepSeek-R1-0528-Qwen3-8B, Qwen2.5's recipe for long texts, and what else YaRN takes.
YARNS = {
    "qwen3": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
    "explicit": {
        "rope_type": "yarn",
        "factor": 2.5,
        "original_max_position_embeddings": 4096,
        "attention_factor": 0.9,
    },
    "betas": {
        "rope_type": "yarn",
        "factor": 8.0,
        "original_max_position_embeddings": 2048,
        "beta_fast": 20,
        "beta_slow": 3,
    },
    "not truncated": {
        "rope_type": "yarn",
        "factor": 32.0,
        "original_max_position_embeddings": 4096,
        "truncate": False,
    },
    "mscale": {
        "rope_type": "yarn",
        "factor": 40.0,
        "original_max_position_embeddings": 4096,
        "mscale": 1.0,
        "mscale_all_dim": 0.8,
    },
    "a ramp of no width": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 4,
    },
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "default": {"rope_type": "default"},
}
LENGTHS = (1, 100, 4_096, 32_768, 131_072)


def values(scaling, theta=1e6, head_dim=128):
    return {
        "model_type": "qwen3",
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "head_dim": head_dim,
        "vocab_size": 8,
        "max_position_embeddings": 131072,
        "rope_parameters": {**scaling, "rope_theta": theta},
    }


def rotated(config: ModelConfig, positions: np.ndarray) -> np.ndarray:
    """Cosines, then sines [T, F] of the angles at some positions: what (1, 0) is rotated to."""
    count = config.head_dim // 2
    x = jnp.concatenate([jnp.ones(count), jnp.zeros(count)])
    scaling = config.rope_scaling
    frequencies = rope_frequencies(config.rope_theta, config.head_dim, scaling)
    out = rope(
        jnp.broadcast_to(x, (1, len(positions), 1, config.head_dim)),
        jnp.asarray(positions)[None],
        frequencies,
        1.0 if scaling is None else scaling.magnitude,
    )
    return np.asarray(out)[0, :, 0]


def yarn_by_the_paper(config: ModelConfig) -> np.ndarray:
    """Frequencies [F] by arXiv 2309.00071, section 3.2 and appendix, in float64, one by one."""
    s = config.rope_scaling
    size = config.head_dim
    out = []

    def index_of(turns):
        # Turns of index i in L tokens: L theta^(-2 i / size) / (2 pi) = turns, solved for i.
        length = s.original_max_position_embeddings
        return size * np.log(length / (2 * np.pi * turns)) / (2 * np.log(config.rope_theta))

    low, high = index_of(s.beta_fast), index_of(s.beta_slow)
    if s.truncate:
        low, high = np.floor(low), np.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    for i in range(size // 2):
        plain = config.rope_theta ** (-2 * i / size)
        share = (i - low) / (high - low if high != low else 1e-3)
        share = min(max(share, 0.0), 1.0)
        out.append((1 - share) * plain + share * plain / s.factor)
    return np.array(out)


@pytest.mark.parametrize("name", [n for n, s in YARNS.items() if s["rope_type"] == "yarn"])
@pytest.mark.parametrize(("theta", "head_dim"), [(1e6, 128), (1e4, 64), (5e5, 20)])
def test_yarn_by_the_paper(name, theta, head_dim):
    config = config_from_json(values(YARNS[name], theta, head_dim))
    ours = jax.jit(rope_frequencies, static_argnums=(0, 1, 2))(theta, head_dim, config.rope_scaling)
    np.testing.assert_allclose(ours, yarn_by_the_paper(config), rtol=2e-6)
    # Fast ones are kept, slow ones stretched by the whole factor.
    plain = np.asarray(rope_frequencies(theta, head_dim, None))
    assert np.all(ours <= plain * (1 + 1e-6))
    assert np.all(ours >= plain / config.rope_scaling.factor * (1 - 1e-6))


def test_yarn_scales_queries_and_keys():
    def magnitude(**changes):
        config = config_from_json(values({**YARNS["qwen3"], **changes}))
        return config.rope_scaling.magnitude, rotated(config, np.arange(3))

    plain, at = magnitude()
    assert plain == pytest.approx(0.1 * np.log(4) + 1)
    np.testing.assert_allclose(np.hypot(at[:, :64], at[:, 64:]), plain, rtol=1e-6)
    assert magnitude(attention_factor=1.0)[0] == 1
    assert magnitude(factor=1.0)[0] == 1
    both = magnitude(mscale=2.0, mscale_all_dim=0.5)[0]
    assert both == pytest.approx((0.2 * np.log(4) + 1) / (0.05 * np.log(4) + 1))


def test_linear_is_a_slower_count():
    plain = config_from_json(values(YARNS["default"]))
    slow = config_from_json(values(YARNS["linear"]))
    np.testing.assert_array_equal(
        rotated(slow, np.array([0, 4, 400])), rotated(plain, np.array([0, 1, 100]))
    )


@given(
    theta=st.floats(2, 1e8),
    factor=st.floats(1, 100),
    original=st.integers(1, 10**6),
    betas=st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)),
    truncate=st.booleans(),
)
def test_any_yarn_lies_between_kept_and_stretched(theta, factor, original, betas, truncate):
    scaling = YarnRopeScaling(factor, original, None, max(betas), min(betas), truncate)
    plain = np.asarray(rope_frequencies(theta, 32, None))
    ours = np.asarray(rope_frequencies(theta, 32, scaling))
    assert np.all(ours <= plain * 1.00001) and np.all(ours >= plain / factor * 0.99999)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: LinearRopeScaling(0.5), "factor=0.5"),
        (lambda: LinearRopeScaling(float("nan")), "factor=nan"),
        (lambda: Llama3RopeScaling(8.0, 4.0, 4.0, 64), "high_freq_factor"),
        (lambda: YarnRopeScaling(float("inf"), 64), "factor=inf"),
        (lambda: YarnRopeScaling(4.0, 64, 0.0), "attention_factor"),
        (lambda: YarnRopeScaling(4.0, 64, None, 1.0, 2.0), "beta_fast"),
    ],
)
def test_scalings_out_of_range(make, field):
    with pytest.raises(ValueError, match=f"rope_scaling.{field}"):
        make()


@pytest.mark.parity
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", list(YARNS))
def test_transformers_rotates_alike(name, length):
    torch = pytest.importorskip("torch")
    from transformers import Qwen3Config
    from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

    fields = values(YARNS[name])
    module = Qwen3RotaryEmbedding(Qwen3Config(**fields))
    positions = np.unique(np.linspace(0, length - 1, 300).astype(np.int32))
    cos, sin = module(torch.zeros(1), torch.tensor(positions, dtype=torch.long)[None])
    theirs = np.concatenate([cos[0, :, :64].numpy(), sin[0, :, :64].numpy()], axis=1)
    ours = rotated(config_from_json(fields), positions)
    # A frequency's last bit, times the position.
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6 + 2e-7 * length)
