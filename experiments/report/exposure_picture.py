"""ATESD's panels of a report: exposure, the policy's density, reward terms, mismatch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from scipy import stats

from experiments.report.colors import BLUE, GREEN, GREY, ORANGE, RED
from experiments.report.columns import column

_BY_GROUP = (GREEN, ORANGE, RED, BLUE)
Records = Sequence[Mapping[str, Any]]


def exposure_panels(train: Records) -> list[Callable[[Axes], None]]:
    """What there is data for.

    Args:
      train: records of the updates, as in metrics.jsonl.
    """
    exposed = [m for m in train if "exposure" in m]
    if not exposed:
        return []
    panels: list[Callable[[Axes], None]] = [lambda axes: _path(axes, exposed)]
    learned = [m for m in exposed if "beta_a" in m]
    if learned:
        panels.append(lambda axes: _density(axes, learned))
        panels.append(lambda axes: _reward(axes, learned))
    panels.append(lambda axes: _mismatch(axes, exposed))
    return panels


def _groups(records: Records, name: str) -> list[str]:
    """`name`, or its fields by group where there are several."""
    found = [f"{name}_{group}" for group in range(100) if f"{name}_{group}" in records[0]]
    return found or [name]


def _path(axes: Axes, records: Records) -> None:
    """The exposure that every update used; of a learned policy also its middle 80 %."""
    steps = column(records, "step")
    names = _groups(records, "exposure")
    for index, name in enumerate(names):
        color = BLUE if len(names) == 1 else _BY_GROUP[index % len(_BY_GROUP)]
        label = "a" if len(names) == 1 else f"a of group {index} (0: easiest)"
        axes.step(steps, column(records, name), where="mid", color=color, lw=1.6, label=label)
    if len(names) == 1 and "beta_a" in records[0]:
        a, b = column(records, "beta_a"), column(records, "beta_b")
        low, high = stats.beta.ppf(0.1, a, b), stats.beta.ppf(0.9, a, b)
        axes.fill_between(steps, low, high, color=BLUE, alpha=0.15, lw=0, label="policy, 80 %")
        axes.plot(steps, a / (a + b), color=GREY, ls="--", lw=1.2, label="policy, mean")
    axes.set(title="Exposure", xlabel="step", ylabel="share of the reasoning shown", ylim=(0, 1.02))
    axes.legend(frameon=False)


def _density(axes: Axes, records: Records) -> None:
    """The policy's density over a, step by step; the mean of the groups' densities."""
    steps, grid = column(records, "step"), np.linspace(0.005, 0.995, 100)
    pairs = zip(_groups(records, "beta_a"), _groups(records, "beta_b"), strict=True)
    density = np.mean(
        [
            stats.beta.pdf(grid[:, None], column(records, a)[None], column(records, b)[None])
            for a, b in pairs
        ],
        axis=0,
    )
    mesh = axes.pcolormesh(steps, grid, density, shading="nearest", cmap="viridis", rasterized=True)
    axes.figure.colorbar(mesh, ax=axes, label="density")
    axes.grid(visible=False)
    axes.set(title="Beta policy over time", xlabel="step", ylabel="exposure a")


def _reward(axes: Axes, records: Records) -> None:
    """Both terms of Eq. 8 of the last completed decision, raw, and the reward made of them."""
    done = [m for m in records if float(m.get("decisions_completed", 0)) > 0]
    axes.set(title="Reward of completed decisions", xlabel="step", ylabel="nats per token")
    if not done:
        axes.text(0.5, 0.5, "none yet", transform=axes.transAxes, ha="center", color=GREY)
        return
    steps = column(done, "step")
    axes.plot(steps, column(done, "gain"), color=GREEN, lw=1.6, label="G_lp, gain")
    axes.plot(steps, column(done, "grounding"), color=ORANGE, lw=1.6, label="G_gt, grounding")
    right = axes.twinx()
    right.plot(
        steps, column(done, "decision_reward"), color=GREY, lw=1.2, ls="--", label="R (right)"
    )
    right.spines["top"].set_visible(False)
    handles = [*axes.get_legend_handles_labels()[0], *right.get_legend_handles_labels()[0]]
    axes.legend(handles, [str(h.get_label()) for h in handles], frameon=False)


def _mismatch(axes: Axes, records: Records) -> None:
    """Mismatch of exposed teacher and student, and the loss on the probe batch."""
    steps = column(records, "step")
    axes.plot(steps, column(records, "mismatch"), color=BLUE, lw=1.2, label="mismatch M(a)")
    if "probe_loss" in records[0]:
        axes.plot(steps, column(records, "probe_loss"), color=RED, lw=1.6, label="probe, fixed a")
    axes.set(title="Mismatch, KL(teacher, student)", xlabel="step", ylabel="nats per token")
    axes.legend(frameon=False)
