"""Batches: contents, masks, exact resumption, errors that name the example."""

import functools
import json
import subprocess
import sys

import numpy as np
import pytest

from experiments.data.batches import completion_batches, prompt_batches
from experiments.data.sources import FileSource
from experiments.tasks.chain import ChainSource
from experiments.tasks.chain_tokenizer import build_chain_tokenizer
from experiments.tasks.example import Example
from models.text.tokenizer import decode, render_prompt

TOKENIZER = build_chain_tokenizer()
RENDER = functools.partial(render_prompt, TOKENIZER)


def prompts(source=None, **options):
    source = ChainSource("train", size=10) if source is None else source
    return prompt_batches(source, RENDER, **({"batch_size": 4, "max_prompt_tokens": 32} | options))


def completions(source=None, **options):
    source = ChainSource("train", size=10, style="both") if source is None else source
    return completion_batches(
        source, TOKENIZER, RENDER, **({"batch_size": 4, "max_tokens": 128} | options)
    )


def take(batches, count):
    return [next(batches) for _ in range(count)]


def assert_equal(a, b):
    assert a.examples == b.examples
    for name, array in vars(a).items():
        if name != "examples":
            np.testing.assert_array_equal(array, getattr(b, name))


def test_prompts_are_the_rendered_problems():
    for batch in take(prompts(), 5):
        assert batch.prompts_BxP.shape == (4, 32)
        assert {
            batch.prompts_BxP.dtype,
            batch.prompt_lengths_B.dtype,
            batch.sample_ids_B.dtype,
        } == {np.dtype(np.int32)}
        for row, length, example in zip(
            batch.prompts_BxP, batch.prompt_lengths_B, batch.examples, strict=True
        ):
            assert decode(TOKENIZER, row[:length]) == example.problem + "\n"
            assert not row[length:].any()


def test_sample_ids_count_draws_over_epochs():
    batches = take(prompts(), 10)
    ids = np.concatenate([b.sample_ids_B for b in batches])
    np.testing.assert_array_equal(ids, np.arange(40))
    problems = [e.problem for b in batches for e in b.examples]
    epochs = [problems[i : i + 10] for i in range(0, 40, 10)]
    everything = {e.problem for e in ChainSource("train", size=10)}
    assert all(set(epoch) == everything for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_order_follows_seed_and_shuffle():
    source = ChainSource("train", size=40)

    def order(**options):
        return [e.id for b in take(prompts(source, **options), 5) for e in b.examples]

    assert order(shuffle=False) == [source[i].id for i in range(20)]
    assert order(seed=1) == order(seed=1) != order(seed=2)


@pytest.mark.parametrize("make", [prompts, completions])
def test_resumed_equals_uninterrupted(make):
    uninterrupted = make(seed=5)
    take(uninterrupted, 3)
    state = json.loads(json.dumps(uninterrupted.get_state()))
    expected = take(uninterrupted, 8)
    fresh = make(seed=5)
    take(fresh, 1)
    fresh.set_state(state)
    for a, b in zip(expected, take(fresh, 8), strict=True):
        assert_equal(a, b)
    assert fresh.get_state() == uninterrupted.get_state()


def test_completions_weigh_reference_and_eos_only():
    for batch in take(completions(), 5):
        assert batch.tokens_BxT.shape == batch.weights_BxT.shape == (4, 128)
        for row, weights, length, example in zip(
            batch.tokens_BxT, batch.weights_BxT, batch.lengths_B, batch.examples, strict=True
        ):
            learnt = row[weights == 1]
            assert decode(TOKENIZER, learnt[:-1]) == example.reference
            assert learnt[-1] == row[length - 1] == TOKENIZER.eos_token_id
            prompt = row[: length - len(learnt)]
            assert decode(TOKENIZER, prompt) == example.problem + "\n"
            assert weights.sum() == len(learnt)
            assert not row[length:].any()
            assert not weights[length:].any()


def test_overlong_examples_are_dropped_and_counted():
    source = ChainSource("train", size=50, style="both")

    def length(example):
        return len(RENDER(example.problem)) + len(example.reference) + 1

    fitting = [i for i in range(50) if length(source[i]) <= 70]
    assert 5 < len(fitting) < 45
    batches = completions(
        source, max_tokens=70, overlong="drop", shuffle=False, batch_size=len(fitting)
    )
    for epoch in range(2):
        batch = next(batches)
        np.testing.assert_array_equal(batch.sample_ids_B, np.array(fitting) + 50 * epoch)
    # Draws are read up to the last one kept, in the second epoch.
    assert batches.dropped == 50 + fitting[-1] + 1 - 2 * len(fitting)
    assert batches.get_state()["dropped"] == batches.dropped


def test_errors_name_the_example():
    with pytest.raises(ValueError, match=r"example chain/train/0/\d .*max_prompt_tokens=5"):
        next(prompts(max_prompt_tokens=5))
    with pytest.raises(
        ValueError, match=r"Example chain/train/0/\d .*max_tokens=9.*overlong='drop'"
    ):
        next(completions(max_tokens=9))
    with pytest.raises(ValueError, match="Every example is longer than 9"):
        next(completions(max_tokens=9, overlong="drop"))
    bare = FileSource((Example("a.jsonl:3", "a=3?", "", "3", "a"),))
    with pytest.raises(ValueError, match=r"a\.jsonl:3 has no reference"):
        next(completions(bare))
    foreign = FileSource((Example("a.jsonl:4", "é?", "", "3", "a"),))
    with pytest.raises(ValueError, match="é"):
        next(prompts(foreign))


def test_bad_options_are_named():
    with pytest.raises(ValueError, match="overlong='skip'"):
        completions(overlong="skip")
    with pytest.raises(ValueError, match="batch_size=0"):
        prompts(batch_size=0)
    with pytest.raises(ValueError, match="empty"):
        prompts(FileSource(()))


def test_a_process_ends_while_batches_are_read_ahead():
    program = (
        "import functools\n"
        "from experiments.data.batches import prompt_batches\n"
        "from experiments.tasks.chain import ChainSource\n"
        "from experiments.tasks.chain_tokenizer import build_chain_tokenizer\n"
        "from models.text.tokenizer import render_prompt\n"
        "render = functools.partial(render_prompt, build_chain_tokenizer())\n"
        "batches = prompt_batches(ChainSource('train'), render, batch_size=4, max_prompt_tokens=32)\n"
        "print(next(batches).sample_ids_B.tolist())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[0, 1, 2, 3]"
