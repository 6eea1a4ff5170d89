"""Dual exposure bias of a model pair in memory, by response position.

The diagnostics of MOTAB (arXiv 2605.19433, Figures 1 and 2) as we read them; the paper gives no
formulas. For every problem each model writes `n` samples of its own on the same prompt: S-text is
the student's, T-text the teacher's. All quantities are in nats, under the unfiltered models at
temperature 1, whatever the text was sampled with. Position t counts response tokens from 0.

* Figure 1, `log_probs`: log p_m(y_t | prompt, y_<t) for the tokens y of T-text (off-policy for the
  student) and of S-text (on-policy for it), m = teacher and student: four curves.
* Figure 2, `kl`: exposure bias of m, KL(p_m(. | prompt, y_<t) || p_m(. | prompt, y'_<t)), y the
  text m wrote itself and y' the other model's: the student's, and the teacher's (reversed exposure
  bias). Sample i of one is paired with sample i of the other; t counts where both texts have a
  token. At t = 0 the contexts are the same and the KL is 0. It also counts that two texts have got
  to different places by t; a model against itself (as both --student and --teacher) shows how much.

A point of a curve is a mean over problems of each problem's mean over its tokens in the bin, with a
95 % bootstrap interval over problems. Later bins hold fewer problems: those whose text is that
long. Noise belongs to (seed, writer, problem's index * n + sample): batches do not matter.

With `--window K` also whether a token's loss says that the models part there (TOPD, arXiv
2606.00305): loss against optimal transport between windows of K tokens,
`experiments.diagnose.near_future`.

diagnose.json, strict JSON:

    log_probs     {"teacher_text" | "student_text": {"teacher" | "student": CURVE}}
    kl            {"student" | "teacher": CURVE}
    texts         {"student" | "teacher": {"mean_length": tokens, "truncation_rate": share}}
    near_future   with --window: what `experiments.diagnose.near_future.near_future` returns
    problems, samples, bin, min_problems, seconds
    settings      the command's flags
    commit, dirty, versions, device, device_count

    CURVE         {"overall": POINT, "bins": [POINT with "start" and "end"], "left_out": bins with
                  some but fewer than min_problems problems}; a bin covers start <= t < end
    POINT         {"mean", "low", "high", "problems", "tokens"}: tokens or, for kl, positions
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from transformers import PreTrainedTokenizerBase

from distill.roles import Role, role_key
from experiments.data.batches import pad_rows, prompt_ids
from experiments.diagnose.exposure_bias import compare_contexts
from experiments.diagnose.position_curves import PositionCurve
from experiments.diagnose.settings import DiagnosisOptions
from experiments.pair.model import Model
from experiments.tasks.example import Example
from models import generate
from models.text.tokenizer import Render, render_prompt

ROLES = {"student": Role.STUDENT, "teacher": Role.TEACHER}
_OTHER = {"student": "teacher", "teacher": "student"}

_compare = jax.jit(compare_contexts, static_argnames=("config", "vocab_size"))


def diagnose(
    student: Model,
    teacher: Model,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    settings: DiagnosisOptions,
    *,
    vocab_size: int | None = None,
    eos: tuple[int, ...] | None = None,
    render: Render | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Measures the pair's exposure bias; the module's docstring says what that is.

    Args:
      student, teacher: the two models.
      tokenizer: of both; `compare_tokenizers` says whether there is such a thing.
      examples: the problems.
      settings: how texts are sampled and positions are put into bins.
      vocab_size: ids from here on do not exist for either model; the ids that tokenizer and models
        share by default.
      eos: ids that end a text; the tokenizer's EOS by default.
      render: problem text to prompt ids; `render_prompt` without options by default.
      on_batch: called with pairs done and pairs in all.

    Returns:
      What diagnose.json holds, without `settings` and the environment.

    Raises:
      ValueError: there are too few problems, or texts exceed the positions of a model.
    """
    if len(examples) < settings.min_problems:
        raise ValueError(
            f"There are {len(examples)} problems, fewer than min_problems={settings.min_problems}: "
            "every bin would be left out. Raise size, or lower min_problems."
        )
    n, max_new_tokens = settings.n, settings.max_new_tokens
    begun = time.monotonic()
    pair = {"student": student, "teacher": teacher}
    positions = min(model.config.max_positions for model in pair.values())
    render = render or functools.partial(render_prompt, tokenizer)
    ids = [prompt_ids(example, render, positions) for example in examples]
    prompts_ExP, lengths_E = pad_rows(ids, max(map(len, ids)))
    if prompts_ExP.shape[1] + max_new_tokens > positions:
        raise ValueError(
            f"Prompts of {prompts_ExP.shape[1]} tokens and max_new_tokens={max_new_tokens} exceed "
            f"the {positions} positions of the models. Lower max_new_tokens."
        )
    known = [len(tokenizer), *(model.config.vocab_size for model in pair.values())]
    vocab = min([*known, vocab_size] if vocab_size else known)
    eos = (tokenizer.eos_token_id,) if eos is None else eos
    key = jax.random.key(settings.seed)

    def write(
        role: str, prompts: np.ndarray, lengths: np.ndarray, rows: np.ndarray
    ) -> tuple[jax.Array, jax.Array]:
        text = generate(
            pair[role].params,
            pair[role].config,
            prompts,
            lengths,
            role_key(key, ROLES[role], 0),
            max_new_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
            eos_ids=eos,
            row_ids=rows.astype(np.int32),
            vocab_size=vocab,
        )
        return text.tokens_BxN, text.lengths_B

    total = len(examples) * n
    batch_size = min(settings.batch_size, total)

    def new_curve() -> PositionCurve:
        return PositionCurve(len(examples), max_new_tokens, settings.bin)

    log_probs = {text: {model: new_curve() for model in ROLES} for text in ROLES}
    kl = {model: new_curve() for model in ROLES}
    lengths_of: dict[str, list[np.ndarray]] = {role: [] for role in ROLES}
    cut_off = dict.fromkeys(ROLES, 0)
    for start in range(0, total, batch_size):
        count = min(batch_size, total - start)
        # The last batch repeats its last pair to stay as wide.
        rows = np.minimum(np.arange(start, start + batch_size), total - 1)
        prompts, lengths = prompts_ExP[rows // n], lengths_E[rows // n]
        texts = {role: write(role, prompts, lengths, rows) for role in ROLES}
        scores = {
            role: _compare(
                model.params,
                model.config,
                prompts,
                lengths,
                texts[role][0],
                texts[_OTHER[role]][0],
                vocab,
            )
            for role, model in pair.items()
        }
        texts, scores = jax.tree.map(lambda x, c=count: x[:c], jax.device_get((texts, scores)))
        problems = rows[:count] // n
        there = {}
        for role, (tokens, length) in texts.items():
            there[role] = np.arange(max_new_tokens) < length[:, None]
            ends = tokens[np.arange(count), length - 1]
            cut_off[role] += int((~np.isin(ends, eos)).sum())
            lengths_of[role].append(length)
        for role, of in scores.items():
            log_probs[role][role].add(problems, of.own_log_probs, there[role])
            other = _OTHER[role]
            log_probs[other][role].add(problems, of.other_log_probs, there[other])
            kl[role].add(problems, of.kl, there[role] & there[other])
        if on_batch:
            on_batch(start + count, total)

    return {
        "log_probs": {
            f"{text}_text": {
                model: log_probs[text][model].summary(settings.min_problems) for model in ROLES
            }
            for text in ROLES
        },
        "kl": {model: kl[model].summary(settings.min_problems) for model in ROLES},
        "texts": {
            role: {
                "mean_length": float(np.concatenate(lengths_of[role]).mean()),
                "truncation_rate": cut_off[role] / total,
            }
            for role in ROLES
        },
        "problems": len(examples),
        "samples": n,
        "bin": settings.bin,
        "min_problems": settings.min_problems,
        "seconds": time.monotonic() - begun,
    }
