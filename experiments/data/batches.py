"""Batches of prompts, and of prompts with completions, from a checkpointable stream of draws.

A source is shuffled and repeated without end; draw `i` of that stream is one sample, and `i` is its
global sample id, to which all randomness about it belongs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import grain
import numpy as np
from transformers import PreTrainedTokenizerBase

from experiments.data.sources import FileSource, Source, keep_good
from experiments.tasks.example import Example
from models.text.tokenizer import Render, encode_response

BatchT = TypeVar("BatchT")
# One background thread reads ahead; fast tokenizers must not be shared between several.
_READ = grain.ReadOptions(num_threads=1, prefetch_buffer_size=64)


@dataclasses.dataclass(frozen=True)
class PromptBatch:
    """Prompts, right-padded with zeros.

    Attributes:
      prompts_BxP: int32 token ids.
      prompt_lengths_B: int32, in tokens.
      sample_ids_B: int32, positions in the stream of draws.
      examples: the B examples themselves.
    """

    prompts_BxP: np.ndarray
    prompt_lengths_B: np.ndarray
    sample_ids_B: np.ndarray
    examples: tuple[Example, ...]


@dataclasses.dataclass(frozen=True)
class CompletionBatch:
    """Prompts followed by their completions and EOS, right-padded with zeros.

    Attributes:
      tokens_BxT: int32 token ids.
      lengths_B: int32, prompt, completion and EOS together, in tokens.
      weights_BxT: float32, 1 on the tokens to be learnt (completion and EOS), 0 on prompt and
        padding. The weight of a token stands at its own position, not at its predecessor's.
      sample_ids_B: int32, positions in the stream of draws.
      examples: the B examples themselves.
    """

    tokens_BxT: np.ndarray
    lengths_B: np.ndarray
    weights_BxT: np.ndarray
    sample_ids_B: np.ndarray
    examples: tuple[Example, ...]


@dataclasses.dataclass(frozen=True)
class Draw:
    """One sample: its token ids, of which the first `prompt_length` are the prompt."""

    sample_id: int
    example: Example
    tokens: tuple[int, ...]
    prompt_length: int


class Batches(Generic[BatchT]):
    """An endless iterator of batches whose state is a small JSON-able dict.

    After `set_state(state)` it goes on exactly as the iterator did that gave the state.

    Attributes:
      dropped: draws left out so far because they were too long.
    """

    def __init__(
        self,
        source: Source,
        tokenise: Callable[[Example], tuple[list[int], int]],
        collate: Callable[[Sequence[Draw]], BatchT],
        *,
        batch_size: int,
        shuffle: bool,
        seed: int,
        max_tokens: int | None = None,
    ):
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1.")
        if not len(source):
            raise ValueError("The data set is empty.")

        def draw(sample_id: int, example: Example) -> Draw:
            tokens, prompt_length = tokenise(example)
            return Draw(sample_id, example, tuple(tokens), prompt_length)

        data = grain.MapDataset.source(source).seed(seed)
        data = data.shuffle() if shuffle else data
        self._draws = iter(data.repeat().map_with_index(draw).to_iter_dataset(_READ))
        self._collate = collate
        self._batch_size = batch_size
        self._max_tokens = max_tokens
        self._source_size = len(source)
        self.dropped = 0

    def __iter__(self) -> Iterator[BatchT]:
        return self

    def __next__(self) -> BatchT:
        kept: list[Draw] = []
        dropped_in_a_row = 0
        while len(kept) < self._batch_size:
            draw = next(self._draws)
            if self._max_tokens is None or len(draw.tokens) <= self._max_tokens:
                kept.append(draw)
                dropped_in_a_row = 0
                continue
            self.dropped += 1
            dropped_in_a_row += 1
            if dropped_in_a_row > 2 * self._source_size:
                raise ValueError(
                    f"Every example is longer than {self._max_tokens} tokens. Raise max_tokens."
                )
        return self._collate(kept)

    def get_state(self) -> dict[str, Any]:
        """Where the stream stands, after the last batch given out."""
        return {"draws": self._draws.get_state(), "dropped": self.dropped}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to where an iterator over the same data and options stood."""
        self._draws.set_state(state["draws"])
        self.dropped = state["dropped"]


def prompt_batches(
    source: Source,
    render: Render,
    *,
    batch_size: int,
    max_prompt_tokens: int,
    shuffle: bool = True,
    seed: int = 0,
) -> Batches[PromptBatch]:
    """Batches of prompts, [batch_size, max_prompt_tokens].

    Args:
      source: from `load_source`.
      render: problem text to prompt ids; `render_prompt` with its options bound.
      batch_size: prompts per batch.
      max_prompt_tokens: width of a batch.
      shuffle: draw in a seeded order, another in every epoch; else in the source's order.
      seed: of the shuffle.

    Raises:
      ValueError: a prompt is longer than `max_prompt_tokens`: of a file at once, unless its
        `on_error` says to skip it; of the embedded task while iterating.
    """
    source = fitting_prompts(source, render, max_prompt_tokens)

    def tokenise(example: Example) -> tuple[list[int], int]:
        ids = prompt_ids(example, render, max_prompt_tokens)
        return ids, len(ids)

    def collate(draws: Sequence[Draw]) -> PromptBatch:
        prompts, lengths = pad_rows([d.tokens for d in draws], max_prompt_tokens)
        return PromptBatch(prompts, lengths, _sample_ids(draws), tuple(d.example for d in draws))

    return Batches(source, tokenise, collate, batch_size=batch_size, shuffle=shuffle, seed=seed)


def completion_batches(
    source: Source,
    tokenizer: PreTrainedTokenizerBase,
    render: Render,
    *,
    batch_size: int,
    max_tokens: int,
    shuffle: bool = True,
    seed: int = 0,
    overlong: str = "error",
) -> Batches[CompletionBatch]:
    """Batches of prompts with their reference solutions, [batch_size, max_tokens].

    Args:
      source, render, batch_size, shuffle, seed: as in `prompt_batches`.
      tokenizer: of the references; ends them with its `eos_token`.
      max_tokens: width of a batch: prompt, reference and EOS.
      overlong: `error`, or `drop` to leave longer examples out and count them in `dropped`.

    Raises:
      ValueError: for an unknown `overlong`; for an example that is too long or has no reference: of
        a file at once, unless its `on_error` says to skip it; of the embedded task while iterating.
    """
    if overlong not in ("error", "drop"):
        raise ValueError(f"overlong={overlong!r} is neither 'error' nor 'drop'.")
    if tokenizer.eos_token_id is None:
        raise ValueError("The tokenizer has no eos_token to end completions with.")

    def tokenise(example: Example) -> tuple[list[int], int]:
        if not example.reference:
            raise ValueError(f"Example {example.id} has no reference solution to learn from.")
        prompt = render(example.problem)
        response = encode_response(tokenizer, prompt, example.reference)
        tokens = [*prompt, *response, tokenizer.eos_token_id]
        if overlong == "error" and len(tokens) > max_tokens:
            raise ValueError(
                f"Example {example.id} has {len(tokens)} tokens with its reference, more than "
                f"max_tokens={max_tokens}. Raise max_tokens, or set overlong='drop'."
            )
        return tokens, len(prompt)

    source = _checked(source, tokenise)

    def collate(draws: Sequence[Draw]) -> CompletionBatch:
        tokens, lengths = pad_rows([d.tokens for d in draws], max_tokens)
        starts = np.array([d.prompt_length for d in draws])[:, None]
        position = np.arange(max_tokens)[None]
        weights = (position >= starts) & (position < lengths[:, None])
        examples = tuple(d.example for d in draws)
        return CompletionBatch(
            tokens, lengths, weights.astype(np.float32), _sample_ids(draws), examples
        )

    return Batches(
        source,
        tokenise,
        collate,
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
        max_tokens=max_tokens,
    )


def fitting_prompts(source: Source, render: Render, max_prompt_tokens: int) -> Source:
    """The source; of a file without the examples whose prompts don't fit, if it says to skip such.

    Raises:
      ValueError: a file's prompt is longer than `max_prompt_tokens`, or cannot be written.
    """
    return _checked(source, lambda example: prompt_ids(example, render, max_prompt_tokens))


def _checked(source: Source, tokenise: Callable[[Example], Any]) -> Source:
    """A file's examples, each of them tried before any work; the embedded task has no bad ones."""
    if not isinstance(source, FileSource) or not source.examples:
        return source

    return keep_good(source, source.examples[0].source, tokenise)


def prompt_ids(example: Example, render: Render, max_prompt_tokens: int) -> list[int]:
    """Prompt ids of an example.

    Raises:
      ValueError: there are more than `max_prompt_tokens` of them, or none.
    """
    ids = render(example.problem)
    if len(ids) > max_prompt_tokens:
        raise ValueError(
            f"The prompt of example {example.id} has {len(ids)} tokens, more than "
            f"max_prompt_tokens={max_prompt_tokens}. Raise it, or leave long problems out with "
            "filter.max_problem."
        )
    if not ids:
        raise ValueError(f"The prompt of example {example.id} is empty.")
    return ids


def pad_rows(rows: Sequence[Sequence[int]], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ids as int32 [B, width], zeros on the right, and their lengths [B]."""
    tokens = np.zeros((len(rows), width), np.int32)
    for row, ids in enumerate(rows):
        tokens[row, : len(ids)] = ids
    return tokens, np.array([len(ids) for ids in rows], np.int32)


def _sample_ids(draws: Sequence[Draw]) -> np.ndarray:
    return np.array([d.sample_id for d in draws], np.int32)
