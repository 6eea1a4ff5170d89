"""Trajectories for people: text by who wrote it, and what the monitor saw."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from distill.trajectories import Source, Trajectories
from experiments.tasks.example import Example
from models.text.tokenizer import decode
from motab import Record


def readable_rows(
    trajectories: Trajectories, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase
) -> list[dict[str, Any]]:
    """Records of `id`, `prompt`, `answer` and `parts` (of `source` and `text`), one per row."""
    records = []
    for b, example in enumerate(examples):
        source = np.asarray(trajectories.source_BxT[b])
        tokens = np.asarray(trajectories.tokens_BxT[b])
        parts = []
        for kind, run in itertools.groupby(range(len(source)), key=lambda i: source[i]):
            if kind not in (Source.PADDING, Source.PROMPT):
                text = decode(tokenizer, tokens[list(run)].tolist())
                parts.append({"source": Source(kind).name.lower(), "text": text})
        records.append(
            {"id": example.id, "prompt": example.problem, "answer": example.answer, "parts": parts}
        )
    return records


def readable_trajectories(
    trajectories: Trajectories,
    record: Record,
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
) -> list[dict[str, Any]]:
    """One record per row of MOTAB's trajectories, of host arrays.

    Returns:
      Records of `id`, `prompt`, `answer`, `parts` (a list of `source` and `text`), `steps` (their
      texts, as far as the trajectory holds them), `values` and `boundaries` per step, `breach`,
      `root` (0-based steps, -1 for none) and `depth` in steps.
    """
    records = []
    for b, people in enumerate(readable_rows(trajectories, examples, tokenizer)):
        steps = int(record.num_steps_B[b])
        breach, root = int(record.breach_B[b]), int(record.root_B[b])
        records.append(
            {
                **people,
                "steps": _step_texts(trajectories, record, b, tokenizer),
                "values": np.asarray(record.values_BxL[b, :steps]).tolist(),
                "boundaries": np.asarray(record.boundaries_BxL[b, :steps]).tolist(),
                "breach": breach,
                "root": root,
                "depth": breach - root,
                "dropped": bool(record.dropped_B[b]),
                "truncated": bool(record.truncated_B[b]),
            }
        )
    return records


def _step_texts(
    trajectories: Trajectories, record: Record, b: int, tokenizer: PreTrainedTokenizerBase
) -> list[str]:
    """The student's steps of row `b`. Without stitching the flawed ones are not there."""
    source = np.asarray(trajectories.source_BxT[b])
    written = np.asarray(trajectories.tokens_BxT[b])[
        (source == Source.STUDENT) | (source == Source.FLAWED)
    ]
    texts, start = [], 0
    for end in np.asarray(record.step_ends_BxL[b, : int(record.num_steps_B[b])]).tolist():
        if end > len(written):
            break
        texts.append(decode(tokenizer, written[start:end].tolist()))
        start = end
    return texts
