"""The embedded reader: it makes use of a reference block, and its pretraining has room for one."""

from __future__ import annotations

import itertools

import jax
import numpy as np
import pytest

from configs import pretrain
from experiments.data.batches import pad_rows
from experiments.data.sources import load_source
from experiments.tasks.chain import REFERENCE_BLOCK, ChainSource
from models import forward, load_pretrained
from models.embedded import model_directory
from models.text.tokenizer import encode, load_tokenizer, render_prompt


def test_only_training_shows_blocks_and_the_longest_fits():
    config = pretrain.get_config("reader")
    bare = [name for name, spec in config.data.items() if not spec.reference_block]
    assert set(bare) == set(config.data) - {"train"}
    examples = [load_source(config.data.train)[i] for i in range(2000)]
    # A token is a character; the chat template adds a newline, the completion an EOS.
    prompts = np.array([len(e.problem) + 1 for e in examples])
    texts = prompts + [len(e.reference) + 1 for e in examples]
    assert 0.9 * config.prompt.max_tokens < prompts.max() <= config.prompt.max_tokens
    assert 0.9 * config.sft.max_tokens < texts.max() <= config.sft.max_tokens


@pytest.fixture(scope="module")
def reader():
    directory = model_directory("embedded:reader")
    config, params = load_pretrained(directory, dtype="float32")
    tokenizer = load_tokenizer(directory)
    examples = list(ChainSource("validation", size=64, min_steps=4, max_steps=4))
    log_probs = jax.jit(lambda tokens: jax.nn.log_softmax(forward(params, config, tokens)))

    def read(shown: int | None) -> tuple[float, float]:
        """Mean NLL of the references, nats per token, and the share of tokens ranked first.

        Args:
          shown: how many of the four steps the block shows; None: no block.
        """
        nll, first = [], []
        rows, starts = [], []
        for example in examples:
            steps = example.reference.split(".\n\n")
            block = "".join(f"{step}.\n\n" for step in steps[:-1][:shown]) + steps[-1]
            blocked = REFERENCE_BLOCK.format(reference=block, problem=example.problem)
            prompt = render_prompt(tokenizer, example.problem if shown is None else blocked)
            starts.append(len(prompt))
            rows.append([*prompt, *encode(tokenizer, example.reference), tokenizer.eos_token_id])
        tokens_BxT, lengths_B = pad_rows(rows, 144)
        log_probs_BxTxV = np.asarray(log_probs(tokens_BxT))
        for b, (start, end) in enumerate(zip(starts, lengths_B, strict=True)):
            predicted, written = log_probs_BxTxV[b, start - 1 : end - 1], tokens_BxT[b, start:end]
            nll.append(-predicted[np.arange(end - start), written].mean())
            first.append((predicted.argmax(-1) == written).mean())
        return float(np.mean(nll)), float(np.mean(first))

    return read


def test_more_of_the_reference_makes_it_likelier(reader):
    nll, first = zip(*(reader(shown) for shown in range(5)), strict=True)
    assert all(more < less for less, more in itertools.pairwise(nll))
    assert nll[4] < 0.2 * nll[0]
    assert first[4] > 0.995 > first[0]


def test_the_answer_alone_changes_little(reader):
    assert reader(0)[0] == pytest.approx(reader(None)[0], rel=0.2)
