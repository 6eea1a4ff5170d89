"""Logits and greedy continuations against transformers: stored, and live with [parity]."""

import jax
import numpy as np
import pytest
from golden_cases import (
    CONFIGS,
    GOLDENS,
    NEW_TOKENS,
    compared_positions,
    ragged_prompts,
    sequences,
    write_checkpoint,
)

from models import forward, generate, load_pretrained, save_pretrained

TOLERANCE = 2e-4


@pytest.fixture(params=list(CONFIGS))
def case(request) -> str:
    return request.param


def test_matches_goldens(case, tmp_path):
    config, params = load_pretrained(write_checkpoint(case, tmp_path))
    with np.load(GOLDENS / f"{case}.npz") as golden:
        logits = jax.jit(forward, static_argnums=1)(params, config, sequences(case))
        ours = np.asarray(logits)[:, compared_positions(case)]
        np.testing.assert_allclose(ours, golden["logits"], rtol=0, atol=TOLERANCE)

        tokens, lengths = ragged_prompts(case)
        greedy = generate(
            params, config, tokens, lengths, jax.random.key(0), NEW_TOKENS, temperature=0.0
        )
        np.testing.assert_array_equal(greedy.tokens_BxN, golden["greedy"])


@pytest.mark.parity
def test_matches_transformers_live(case, tmp_path):
    pytest.importorskip("torch")
    from make_goldens import golden, torch_logits, torch_model

    fresh = golden(case, tmp_path)
    with np.load(GOLDENS / f"{case}.npz") as stored:
        np.testing.assert_allclose(fresh["logits"], stored["logits"], rtol=0, atol=TOLERANCE / 10)
        np.testing.assert_array_equal(fresh["greedy"], stored["greedy"])

    path = tmp_path / case
    config, params = load_pretrained(path)
    logits = np.asarray(jax.jit(forward, static_argnums=1)(params, config, sequences(case)))
    theirs = torch_logits(torch_model(path), sequences(case))
    np.testing.assert_allclose(logits, theirs, rtol=0, atol=TOLERANCE)


@pytest.mark.parity
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_transformers_loads_what_we_save(case, dtype, tmp_path):
    torch = pytest.importorskip("torch")
    from make_goldens import torch_model
    from transformers import AutoModelForCausalLM

    path = write_checkpoint(case, tmp_path)
    config, params = load_pretrained(path, dtype=dtype)
    save_pretrained(params, config, tmp_path / "ours", max_shard_bytes=20_000)
    theirs, info = AutoModelForCausalLM.from_pretrained(
        tmp_path / "ours", dtype="auto", output_loading_info=True
    )
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert theirs.dtype == getattr(torch, dtype)
    original = torch_model(path).state_dict()
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(tensor, original[name].to(theirs.dtype)), name

    # and back: what transformers saves, in its newest dialect, is again the same model
    theirs.save_pretrained(tmp_path / "theirs")
    config_again, params_again = load_pretrained(tmp_path / "theirs")
    assert config_again == config
    jax.tree.map(np.testing.assert_array_equal, params_again, params)
