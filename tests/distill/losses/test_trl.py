"""The generalised JSD against TRL's `generalized_jsd_loss`: losses and gradients."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill.losses.divergence import jsd

with np.load(Path(__file__).parent / "goldens" / "trl_gkd.npz") as file:
    GOLDEN = dict(file)


@pytest.mark.parametrize("case", range(len(GOLDEN["beta"])))
def test_losses_and_gradients_equal_trl(case):
    beta, mask = float(GOLDEN["beta"][case]), GOLDEN["mask_BxT"]
    with jax.enable_x64(True):

        def loss(student):
            per_token = jsd(jnp.asarray(GOLDEN["teacher_BxTxV"]), student, beta)
            return jnp.sum(mask * per_token) / mask.sum()

        value, grad = jax.value_and_grad(loss)(jnp.asarray(GOLDEN["student_BxTxV"]))
        np.testing.assert_allclose(value, GOLDEN["loss"][case], rtol=1e-12)
        np.testing.assert_allclose(grad, GOLDEN["grad_BxTxV"][case], rtol=1e-10, atol=1e-15)
