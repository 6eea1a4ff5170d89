"""Does a token's loss say that the two models part there? Loss against optimal transport.

TOPD (arXiv 2606.00305) opens windows at a student's positions of high, of any and of low loss: both
models continue greedily from the same prefix, and D_OT says how far the two windows are apart. High
loss and low D_OT is a false alarm.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Table
from scipy import stats
from transformers import PreTrainedTokenizerBase

from distill.losses.signal import Signal
from distill.roles import Role
from distill.rollouts.one_writer import make_rollout
from distill.trajectories import Trajectories
from experiments.command.sampling_flags import SamplingFlags
from experiments.data.batches import pad_rows, prompt_ids
from experiments.pair.model import Model
from experiments.tasks.example import Example
from models import ModelConfig
from models.checks import Count, Share, Temperature, between
from models.decoding.sampling import Sampling
from models.parameters import Params
from models.text.tokenizer import Render, render_prompt
from topd import TransportSettings, WindowSettings
from topd.candidates import Starts, any_position, high_loss, low_loss
from topd.probe import distances, token_losses
from topd.windows import open_windows, prepare, read

# Where windows are opened; the order is that of the columns.
KINDS = ("high", "random", "low")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NearFutureSettings(SamplingFlags):
    """What is looked at, in texts of the student, of which a problem has `n`.

    Attributes:
      window: K, tokens of a window.
      per_text: windows of each kind that a text has, at most.
      share: of a text's tokens, those of the highest loss are its high-loss positions.
      low_quantile: low-loss positions are drawn among those up to this quantile of their text's
        loss.
    """

    window: Count = 50
    per_text: Count = 2
    share: Share = 0.0225
    low_quantile: Share = 0.5
    n: Count = 1
    temperature: Temperature = 1.0
    top_p: Annotated[float, between(0, 1, "(]")] = 1.0


def near_future(
    student: Model,
    teacher: Model,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    settings: NearFutureSettings,
    transport: TransportSettings = TransportSettings(),  # noqa: B008 - frozen
    *,
    eos: Sequence[int],
    vocab_size: int,
    render: Render | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Samples texts of the student, opens windows in them, and compares.

    Returns:
      A JSON-able dict:
        positions: by kind `count`, `median_distance`, `median_loss` (-log q, nats), and `quartiles`
          of the distance. `high`: the highest loss; `random`: any; `low`: drawn from the lower
          part.
        correlation: `pearson` and `spearman` of loss and D_OT over the random positions and over
          the high ones; null where one of them does not vary.
        D_OT is rounded to .001 in all of these.
        false_alarms: share of the high-loss positions with a D_OT at or below `threshold`, the
          upper quartile of the low-loss ones.
        points: by kind (loss, D_OT) of every position.

    Raises:
      ValueError: texts exceed the positions of a model, or no text has a token.
    """
    begun = time.monotonic()
    s = settings
    render = render or functools.partial(render_prompt, tokenizer)
    positions = min(student.config.max_positions, teacher.config.max_positions)
    ids = [prompt_ids(example, render, positions) for example in examples]
    prompts, lengths = pad_rows(ids, max(map(len, ids)))
    if prompts.shape[1] + s.max_new_tokens + s.window > positions:
        raise ValueError(
            f"Prompts of {prompts.shape[1]} tokens, max_new_tokens={s.max_new_tokens} and "
            f"window={s.window} exceed the {positions} positions of the models. Lower one of them."
        )
    look = _make_look(student.config, teacher.config, s, transport, tuple(eos), vocab_size)
    total = len(examples) * s.n
    batch_size = min(s.batch_size, total)
    found: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    key = jax.random.key(s.seed)
    for start in range(0, total, batch_size):
        count = min(batch_size, total - start)
        # The last batch repeats its last text to stay as wide.
        rows = np.minimum(np.arange(start, start + batch_size), total - 1)
        what = look(
            student.params,
            teacher.params,
            prompts[rows // s.n],
            lengths[rows // s.n],
            rows.astype(np.int32),
            key,
        )
        losses, apart, valid = (np.asarray(x)[:count] for x in what)
        for i, kind in enumerate(KINDS):
            columns = slice(i * s.per_text, (i + 1) * s.per_text)
            there = valid[:, columns]
            found[kind].append(
                np.stack([losses[:, columns][there], apart[:, columns][there]], axis=-1)
            )
        if on_batch:
            on_batch(start + count, total)
    points = {kind: np.concatenate(x).astype(np.float64) for kind, x in found.items()}
    if not all(len(x) for x in points.values()):
        raise ValueError("No text of the student has a token: nothing can be compared.")
    return {
        **summarize(points),
        "window": s.window,
        "texts": total,
        "transport": dataclasses.asdict(transport),
        "points": {kind: x.tolist() for kind, x in points.items()},
        "seconds": time.monotonic() - begun,
    }


def summarize(points: dict[str, np.ndarray]) -> dict[str, Any]:
    """Medians, correlations and false alarms of (loss, D_OT) by kind."""
    # Equal windows are at a distance of rounding and entropy: to be told apart from nothing.
    points = {kind: np.stack([x[:, 0], np.round(x[:, 1], 3)], -1) for kind, x in points.items()}
    threshold = float(np.quantile(points["low"][:, 1], 0.75))
    return {
        "positions": {
            kind: {
                "count": len(x),
                "median_distance": float(np.median(x[:, 1])),
                "quartiles": [float(q) for q in np.quantile(x[:, 1], [0.25, 0.75])],
                "median_loss": float(np.median(x[:, 0])),
            }
            for kind, x in points.items()
        },
        "correlation": {kind: _correlation(points[kind]) for kind in ("random", "high")},
        "threshold": threshold,
        "false_alarms": float(np.mean(points["high"][:, 1] <= threshold)),
    }


def _correlation(points: np.ndarray) -> dict[str, float | None]:
    if len(points) < 2 or np.any(np.ptp(points, axis=0) == 0):
        return {"pearson": None, "spearman": None}
    return {
        "pearson": float(stats.pearsonr(*points.T).statistic),
        "spearman": float(stats.spearmanr(*points.T).statistic),
    }


def near_future_table(results: dict[str, Any]) -> Table:
    """Losses and distances by kind of position."""
    table = Table("positions", "windows", "median loss, nats", "median D_OT")
    for kind, found in results["positions"].items():
        table.add_row(
            kind,
            f"{found['count']:,}",
            f"{found['median_loss']:.3f}",
            f"{found['median_distance']:.3f}",
        )
    table.caption = (
        f"false alarms: {100 * results['false_alarms']:.1f} % of the high-loss positions"
    )
    return table


def _make_look(
    student: ModelConfig,
    teacher: ModelConfig,
    settings: NearFutureSettings,
    transport: TransportSettings,
    eos: tuple[int, ...],
    vocab_size: int,
) -> Callable[..., tuple[jax.Array, jax.Array, jax.Array]]:
    """(both parameters, prompts, lengths, sample ids, key) to losses, D_OT, validity [B, 3 W]."""
    s = settings
    sampling = Sampling(s.temperature, s.top_p)
    rollout = make_rollout(
        student, sampling, s.max_new_tokens, eos, Role.STUDENT, vocab_size, "divergence"
    )
    windows = WindowSettings(tokens=s.window, per_rollout=s.per_text, share=s.share)
    both = min(student.vocab_size, teacher.vocab_size)

    def choose(losses: jax.Array, text: Trajectories, ids: jax.Array, key: jax.Array) -> Starts:
        eligible = text.divergence_weights_BxT != 0
        keys = [jax.random.fold_in(key, i) for i in range(s.per_text)]
        found = [
            high_loss(losses, eligible, s.share, s.per_text),
            *(any_position(eligible, ids, k) for k in keys),
            *(low_loss(losses, eligible, s.low_quantile, ids, k) for k in keys),
        ]
        return jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *found)

    @jax.jit
    def look(
        student_params: Params,
        teacher_params: Params,
        prompts: jax.Array,
        lengths: jax.Array,
        ids: jax.Array,
        key: jax.Array,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        text = rollout(student_params, prompts, lengths, ids, key)
        own, theirs = prepare(student_params, student), prepare(teacher_params, teacher)
        mine = read(own, student, text, s.window)
        other = read(theirs, teacher, text, s.window)
        losses = token_losses(
            None, (theirs, teacher, other.hidden_BxTxD), text, Signal(), both
        ).teacher_nll_BxT
        starts = choose(losses, text, ids, key)
        found, vectors = open_windows(
            (own, student, mine.cache),
            (theirs, teacher, other.cache),
            text,
            starts,
            ids,
            key,
            windows,
            transport,
            eos,
            vocab_size,
        )
        apart = distances(found, vectors, transport)[1]
        return jnp.take_along_axis(losses, starts.at_BxW, axis=1), apart, starts.valid_BxW

    return look
