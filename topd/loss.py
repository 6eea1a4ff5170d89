"""L_OPD + lambda L_traj in one pass: a rollout and its windows are one row.

TOPD (arXiv 2606.00305): L_traj = sum over i < K of KL(ytilde_i || p_S(. | c_i)). The states c_i of
a window stand behind the rollout in its row. There a token attends to the rollout up to where its
window opens, and to its own window: the prefix is run once however many windows it has, and the
gradient flows through all of it. B rows, T tokens, W windows, K tokens of a window, N = W K, S = T
- 1 + N.
"""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

import models
from distill.losses.chunked import readout, weighted_sum
from distill.losses.signal import Signal, token_divergence
from distill.trajectories import Trajectories
from models.attention import attention, grouped_attention
from models.parameters import Params
from models.transformer import Attend
from topd.capping import Caps, cap_losses
from topd.probe import Probe
from topd.settings import GuidanceSettings
from topd.targets import Targets, make_targets


class GuidedSums(flax.struct.PyTreeNode):
    """A batch's loss, or a part's share of it. See `distill.train.update.PartSums`.

    Attributes:
      mean: L_OPD, a mean over response tokens, plus lambda L_traj, a mean over guided windows. It
        alone has a gradient. Of a part its share of both, so that those of all parts are added.
      tokens: weight [] of the response tokens.
      metrics: `divergence` (L_OPD as it is without caps) and `trajectory` (L_traj), in nats;
        `guided_windows`, `capped` and `idle_rows`, counts.
    """

    mean: jax.Array
    tokens: jax.Array
    metrics: dict[str, jax.Array]

    @property
    def total(self) -> jax.Array:
        """What is differentiated []."""
        return self.mean

    @property
    def count(self) -> jax.Array:
        """0: the weights hold the batch's counts already."""
        return jnp.zeros_like(self.mean)


class BatchWeights(flax.struct.PyTreeNode):
    """What depends on all rows of a batch; rows first, so that a batch may be cut afterwards.

    Attributes:
      opd_BxT: of every token in L_OPD; of all tokens they sum to 1. T - 1 of them.
      targets, windows_BxN: what windows should say, and the weights of their states in L_traj; None
        where losses are capped.
      caps: of every token's loss; None where windows guide.
    """

    opd_BxT: jax.Array
    targets: Targets | None
    windows_BxN: jax.Array | None
    caps: Caps | None


def batch_weights(
    trajectories: Trajectories, probe: Probe, guided_BxW: jax.Array, settings: GuidanceSettings
) -> BatchWeights:
    """The weights of a whole batch. The arguments are those of `guided_loss`."""
    probe = jax.lax.stop_gradient(probe)
    opd = trajectories.divergence_weights_BxT[:, 1:]
    opd = opd / jnp.maximum(jnp.sum(opd), 1.0)
    if settings.objective != "trajectory":
        caps = cap_losses(probe, settings, trajectories.tokens_BxT.shape[1])
        return BatchWeights(opd, None, None, caps)
    targets = make_targets(probe, settings)
    counted = (guided_BxW & probe.starts.valid_BxW)[..., None]
    totals = jnp.where(counted, targets.totals_BxWxK, 0.0)
    if settings.reduction == "mean":  # over all positions of all guided windows
        counted = counted & (targets.totals_BxWxK > 0)
    windows = totals / jnp.maximum(jnp.sum(counted), 1)
    return BatchWeights(opd, targets, windows.reshape(windows.shape[0], -1), None)


def window_inputs(trajectories: Trajectories, probe: Probe, targets: Targets) -> tuple[Any, Any]:
    """Tokens and positions [B, N] of the windows' states: the i-th predicts the i-th future token.

    The first is the rollout's own token before the window, once more.
    """
    at_BxW = probe.starts.at_BxW
    batch, windows = at_BxW.shape
    width = targets.tokens_BxWxK.shape[-1]
    before = jnp.take_along_axis(trajectories.tokens_BxT, at_BxW - 1, axis=1)
    tokens = jnp.concatenate([before[..., None], targets.tokens_BxWxK[..., :-1]], axis=-1)
    positions = at_BxW[..., None] - 1 + jnp.arange(width)
    return tokens.reshape(batch, windows * width), positions.reshape(batch, windows * width)


def window_sight(at_BxW: jax.Array, width: int, length: int) -> jax.Array:
    """What windows' states see [B, N, S]: the rollout before t - 1, and their window up to them.

    Args:
      length: states of the rollout, T - 1.
    """
    batch, windows = at_BxW.shape
    n = jnp.arange(windows * width)
    rollout = jnp.arange(length) < (at_BxW - 1)[..., None]
    rollout = jnp.repeat(rollout, width, axis=1)
    own = (n[:, None] // width == n // width) & (n <= n[:, None])
    return jnp.concatenate([rollout, jnp.broadcast_to(own, (batch, *own.shape))], axis=2)


def attend_in_windows(
    segment_ids_BxT: jax.Array, sees_BxNxS: jax.Array, config: models.ModelConfig
) -> Attend:
    """Attention of rows whose last N tokens are windows.

    The rollout takes the config's kernel and never sees a window; the windows hold scores [N, S].
    """
    length = segment_ids_BxT.shape[1]

    def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        rollout = attention(q[:, :length], k[:, :length], v[:, :length], segment_ids_BxT, config)
        keys, values = (jnp.swapaxes(x, 1, 2) for x in (k, v))
        windows = grouped_attention(q[:, length:], keys, values, sees_BxNxS)
        return jnp.concatenate([rollout, windows], axis=1)

    return attend


def guided_loss(
    student_params: Params,
    student_config: models.ModelConfig,
    teacher_params: Params,
    teacher_config: models.ModelConfig,
    trajectories: Trajectories,
    probe: Probe,
    guided_BxW: jax.Array,
    signal: Signal,
    settings: GuidanceSettings,
    shares: tuple[float | jax.Array, float | jax.Array] = (1.0, 1.0),
    batch: BatchWeights | None = None,
) -> GuidedSums:
    """The loss of a probed batch, or of some of its rows; it differentiates the student alone.

    Args:
      teacher_params: for their head; the teacher has read the rollouts in the probe.
      guided_BxW: windows that count in L_traj.
      signal: the OPD loss. Distributions run over the ids that both models have.
      shares: of the two terms; (1, 0) is L_OPD alone.
      batch: `batch_weights` of the whole batch, at these rows; None: these rows are all.
    """
    t, probe = trajectories, jax.lax.stop_gradient(probe)
    if batch is None:
        batch = batch_weights(t, probe, guided_BxW, settings)
    length = t.tokens_BxT.shape[1] - 1
    vocab = min(student_config.vocab_size, teacher_config.vocab_size)
    tokens, positions, segments = t.inputs
    opd = t.divergence_weights_BxT[:, 1:]
    weights = batch.opd_BxT * shares[0]
    extras: Any = {"targets": jnp.clip(t.tokens_BxT[:, 1:], max=vocab - 1), "opd": opd}
    teacher_hidden = probe.teacher_hidden_BxTxD
    attend, metrics = None, {"idle_rows": t.idle_rows}
    if batch.caps is not None:
        caps = batch.caps
        extras |= {"factors": caps.factors_BxT[:, 1:], "constants": caps.constants_BxT[:, 1:]}
        metrics["capped"] = jnp.sum(caps.capped_B)
    else:
        targets, weights_N = batch.targets, batch.windows_BxN
        assert targets is not None and weights_N is not None
        extras = _with_windows(extras, targets)
        sight = window_sight(probe.starts.at_BxW, targets.ids_BxWxK.shape[-1], length)
        attend = attend_in_windows(segments, sight, student_config)
        more = window_inputs(t, probe, targets)
        tokens, positions = (
            jnp.concatenate(x, axis=1) for x in zip((tokens, positions), more, strict=True)
        )
        weights = jnp.concatenate([weights, weights_N * (shares[1] * settings.lambda_traj)], axis=1)
        teacher_hidden = jnp.pad(teacher_hidden, ((0, 0), (0, weights_N.shape[1]), (0, 0)))
        metrics["guided_windows"] = jnp.sum(guided_BxW & probe.starts.valid_BxW)

    hidden = models.forward_hidden(
        student_params, student_config, tokens, positions, segments, attend
    )
    student = readout(student_params, student_config, hidden)
    teacher = readout(teacher_params, teacher_config, teacher_hidden)

    def per_token(p: jax.Array, q: Any, x: dict[str, Any]) -> tuple[jax.Array, Any]:
        p, q = p[..., :vocab], q[..., :vocab]
        plain = token_divergence(signal, q, p, x["targets"], x["opd"])
        if "ids" not in x:
            return x["factors"] * plain + x["constants"], {"opd": plain}
        log_p = jnp.take_along_axis(jax.nn.log_softmax(p), x["ids"], axis=-1)
        kl = x["negative_entropy"] - jnp.sum(x["on_ids"] * log_p, axis=-1)
        return jnp.where(x["window"], kl, plain), {"opd": plain, "kl": kl}

    loss, each = weighted_sum(per_token, student, teacher, weights, extras)
    metrics["divergence"] = jnp.sum(batch.opd_BxT * each["opd"][:, :length])
    if batch.windows_BxN is not None:
        metrics["trajectory"] = jnp.sum(batch.windows_BxN * each["kl"][:, length:])
    return GuidedSums(loss, jnp.sum(opd), metrics)


def _with_windows(extras: dict[str, jax.Array], targets: Targets) -> dict[str, jax.Array]:
    """The extras of whole rows [B, S], of those of the rollouts and of the windows' targets."""
    batch, windows, width = targets.ids_BxWxK.shape
    length = extras["targets"].shape[1]

    def behind(x: jax.Array) -> jax.Array:
        """Zeros for the rollout's states, and x for the windows'."""
        x = x.reshape(batch, windows * width, *x.shape[3:])
        return jnp.pad(x, ((0, 0), (length, 0)) + ((0, 0),) * (x.ndim - 2))

    ids = jnp.broadcast_to(targets.ids_BxWxK[..., None, :], targets.weights_BxWxKxK.shape)
    return {
        **{name: jnp.pad(x, ((0, 0), (0, windows * width))) for name, x in extras.items()},
        "window": behind(jnp.ones(targets.ids_BxWxK.shape, bool)),
        "ids": behind(ids),
        "on_ids": behind(targets.weights_BxWxKxK),
        "negative_entropy": behind(targets.negative_entropy_BxWxK),
    }
