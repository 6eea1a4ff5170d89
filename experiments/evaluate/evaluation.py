"""How well a model in memory solves problems: it samples solutions and grades them."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from transformers import PreTrainedTokenizerBase

from distill.train.sharding import batch_multiple
from experiments.data.batches import prompt_ids
from experiments.evaluate.part import Part
from experiments.evaluate.settings import EvaluationOptions
from experiments.evaluate.summary import summarize
from experiments.grading import verdict
from experiments.pair.model import Model
from experiments.rollouts.engine import Engine, Request, key_data
from experiments.tasks.example import Example
from models import ModelConfig
from models.decoding.generate import make_slots
from models.decoding.sampling import Sampling
from models.decoding.slots import Slots
from models.text.tokenizer import Render, decode, opens_thinking, render_prompt


def evaluate(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    settings: EvaluationOptions,
    *,
    eos: tuple[int, ...] | None = None,
    render: Render | None = None,
    prompt_width: int | None = None,
    on_batch: Callable[[int, int], None] | None = None,
    part: Part | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Samples n solutions of every problem and grades them.

    A sample's noise belongs to (seed, problem's index * n + sample): company does not matter.

    Args:
      model: what answers.
      tokenizer: its tokenizer.
      examples: the problems.
      settings: how solutions are sampled and graded. Those longer than `max_new_tokens` are cut off
        and graded as they stand; when one of `batch_size` has ended, the next takes its slot.
      eos: ids that end a completion; the tokenizer's EOS by default.
      render: problem text to prompt ids; `render_prompt` without options by default.
      prompt_width: width of the padded prompts in tokens; the longest prompt's by default. Fixing
        it saves compilation when different problems are evaluated in turn.
      on_batch: called with samples done and samples in all, whenever some have ended.
      part: samples that were graded already, and where others are kept as they are.

    Returns:
      A summary: `accuracy` (Average@n), its 95 % `interval` over problems, `n` (problems),
      `samples` (per problem), `mean_length` (tokens), `truncation_rate`, `timed_out`
      (comparisons of answers that ran out of time), `pass_at_k` by k (a
      string: 1, 2, 4, ... up to n), `majority` (majority@n), `tokens` in all, `seconds`; where
      there are several, scores by `sources` and by `groups`, and `mean_of_sources`, in which each
      data set counts alike. And a record per sample, in the order of problems.

    Raises:
      ValueError: no problems, or prompt and completion exceed the model's positions.
    """
    if not examples:
        raise ValueError("There are no problems to evaluate on.")
    start = time.monotonic()
    n, max_new_tokens = settings.n, settings.max_new_tokens
    render = render or functools.partial(render_prompt, tokenizer)
    config = model.config
    limit = prompt_width or config.max_positions
    prompts = [tuple(prompt_ids(example, render, limit)) for example in examples]
    width = prompt_width or max(map(len, prompts))
    if width + max_new_tokens > config.max_positions:
        raise ValueError(
            f"Prompts of {width} tokens and max_new_tokens={max_new_tokens} exceed the "
            f"{config.max_positions} positions of the model. Lower max_new_tokens."
        )
    eos = (tokenizer.eos_token_id,) if eos is None else eos
    # Rows of the embedding table beyond the tokenizer are padding.
    vocab_size = min(len(tokenizer), config.vocab_size)
    sampling = Sampling(settings.temperature, settings.top_p, settings.top_k, vocab_size)
    total = len(examples) * n
    engine = Engine(
        _writing(config, sampling, max_new_tokens, eos),
        min(settings.batch_size, total),
        width,
        batch_multiple(config.mesh),
    )
    key = key_data(jax.random.key(settings.seed))
    records: dict[int, dict[str, Any]] = {} if part is None else dict(part.known)
    places = [i for i in range(total) if i not in records]
    requests = (Request(prompts[i // n], i, key, payload=i) for i in places)
    for written, done in engine.run(model.params, requests):
        for b, request in enumerate(done):
            example, sample = examples[request.payload // n], request.payload % n
            ids = written.tokens_BxN[b, : written.lengths_B[b]]
            opened = opens_thinking(tokenizer, prompts[request.payload // n])
            record = _record(example, sample, ids, tokenizer, eos, opened, settings.answer)
            records[request.payload] = record
        if part is not None:
            part.add({request.payload: records[request.payload] for request in done})
        if on_batch:
            on_batch(len(records), total)
    ordered = [records[i] for i in range(total)]
    return summarize(ordered, n, seconds=time.monotonic() - start), ordered


@functools.lru_cache(maxsize=8)
def _writing(
    config: ModelConfig, sampling: Sampling, max_new_tokens: int, eos: tuple[int, ...]
) -> Slots:
    """The same parts for the same settings: their programs are compiled once."""
    return make_slots(config, sampling, max_new_tokens, eos)


def _record(
    example: Example,
    sample: int,
    ids: np.ndarray,
    tokenizer: PreTrainedTokenizerBase,
    eos: tuple[int, ...],
    opened: bool,
    answer: str,
) -> dict[str, Any]:
    text = decode(tokenizer, ids.tolist())
    graded = verdict(f"<think>{text}" if opened else text, example, answer)
    return {
        "id": example.id,
        "sample": sample,
        "problem": example.problem,
        "answer": example.answer,
        "source": example.source,
        "group": example.group,
        "text": text,
        "final": graded.final,
        "right": graded.right,
        "timed_out": graded.timed_out,
        "length": len(ids),
        "truncated": not (len(ids) and int(ids[-1]) in eos),
    }
