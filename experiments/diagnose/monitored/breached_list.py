"""breached.md: breached solutions, step by step, to be read and judged by a person."""

from __future__ import annotations

import re

import numpy as np

from experiments.diagnose.monitored.breaches import boundaries
from experiments.diagnose.monitored.reading import Solution, Solutions
from experiments.diagnose.monitored.settings import FigureSettings

_MARKUP = re.compile(r"([\\`*_\[\]<>|$~#])")


def breached_list(solutions: Solutions, settings: FigureSettings) -> str:
    """Up to `show` of the breached solutions, drawn with the seed, as Markdown.

    The first table has an empty column for the verdicts; then comes a section for each.
    """
    found = [x for x in solutions.all if x.breach(settings.gamma_0, settings.alpha)[0] >= 0]
    order = np.random.default_rng(settings.seed).permutation(len(found))
    chosen = [found[i] for i in sorted(order[: settings.show])]
    lines = [
        "# Breached solutions",
        "",
        f"{len(chosen)} of {len(found)} that breach among {len(solutions.all)}, at gamma_0 = "
        f"{settings.gamma_0:g} and alpha = {settings.alpha:g}. Steps count from 1.",
        "",
        "| | problem | root | breach | V | gamma | answer | verdict |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for number, x in enumerate(chosen, 1):
        breach, root = x.breach(settings.gamma_0, settings.alpha)
        gamma = boundaries(x.entropies_L, settings.gamma_0, settings.alpha)[breach]
        answer = "right" if x.line["right"] else "wrong"
        lines.append(
            f"| {number} | {_plain(x.line['example']['id'])} | {root + 1} | {breach + 1} | "
            f"{x.values_L[breach]:.3f} | {gamma:.3f} | {answer} | |"
        )
    for number, x in enumerate(chosen, 1):
        lines += ["", *_section(number, x, settings)]
    return "\n".join(lines) + "\n"


def _section(number: int, x: Solution, settings: FigureSettings) -> list[str]:
    line, example = x.line, x.line["example"]
    breach, root = x.breach(settings.gamma_0, settings.alpha)
    gammas_L = boundaries(x.entropies_L, settings.gamma_0, settings.alpha)
    final = "none" if line["final"] is None else _plain(line["final"])
    rows = []
    for step, text in enumerate(line["steps"]):
        mark = " and ".join(["root"] * (step == root) + ["**breach**"] * (step == breach))
        rows.append(
            f"| {step + 1} | {x.values_L[step]:.3f} | {x.entropies_L[step]:.3f} | "
            f"{gammas_L[step]:.3f} | {mark} | {_plain(text)} |"
        )
    return [
        f"## {number}. {_plain(example['id'])}, sample {line['sample_id']}",
        "",
        _plain(example["problem"]),
        "",
        f"Answer {_plain(example['answer'])}; the solution says {final}.",
        "",
        "| step | V | H | gamma | | text |",
        "|---|---|---|---|---|---|",
        *rows,
    ]


def _plain(text: str) -> str:
    """Text in one line whose marks mean nothing to Markdown; line ends are shown."""
    return _MARKUP.sub(r"\\\1", text).replace("\n", "↵")
