"""Real weights, tokenizers and templates against transformers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill.steps.table import make_step_table
from models import forward, generate, load_pretrained, save_pretrained
from models.text.tokenizer import (
    encode,
    eos_ids,
    load_tokenizer,
    render_prompt,
    token_bytes,
)

from .real_models import PROBLEMS, SMALL, SMOLLM2, needs, torch_logits, torch_model

EITHER = [pytest.param(d, marks=needs(d), id=d.name) for d in (SMOLLM2, SMALL)]
DELIMITER = ".\n\n"


@pytest.mark.parametrize("directory", EITHER)
@pytest.mark.parametrize("length", [1, 600, 2000])
def test_logits_are_those_of_transformers(directory, length):
    config, params = load_pretrained(directory, dtype="float32", stacked=False)
    text = encode(load_tokenizer(directory), "\n\n".join(PROBLEMS) + "\n\n")
    tokens = np.resize(np.array(text), length)
    theirs = torch_logits(directory, tokens)
    ours = np.asarray(jax.jit(forward, static_argnums=1)(params, config, tokens[None]))[0]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=5e-4)


@pytest.mark.parametrize("directory", EITHER)
def test_greedy_continuations_of_ragged_prompts_are_those_of_transformers(directory):
    import torch

    tokenizer = load_tokenizer(directory)
    ends = eos_ids(tokenizer, directory)
    config, params = load_pretrained(directory, dtype="float32", stacked=False)
    prompts = [render_prompt(tokenizer, problem) for problem in PROBLEMS]
    lengths = np.array([len(p) for p in prompts])
    padded = np.zeros((len(prompts), lengths.max()), np.int32)
    for row, prompt in zip(padded, prompts, strict=True):
        row[: len(prompt)] = prompt
    out = generate(
        params, config, padded, jnp.asarray(lengths), jax.random.key(0), 64, temperature=0.0,
        eos_ids=ends,
    )  # fmt: skip
    for b, prompt in enumerate(prompts):
        theirs = torch_model(directory).generate(
            torch.tensor([prompt]), max_new_tokens=64, do_sample=False, eos_token_id=list(ends),
            pad_token_id=ends[0], repetition_penalty=1.0,
        )  # fmt: skip
        ours = out.tokens_BxN[b, : out.lengths_B[b]].tolist()
        assert ours == theirs[0, len(prompt) :].tolist(), b


@pytest.mark.parametrize("directory", EITHER)
@pytest.mark.parametrize("system", ["", "You solve problems."])
def test_chat_templates_write_what_transformers_writes(directory, system):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(directory)
    ours = load_tokenizer(directory)
    for problem in PROBLEMS:
        messages = [{"role": "user", "content": problem}]
        if system:
            messages.insert(0, {"role": "system", "content": system})
        text = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert ours.decode(render_prompt(ours, problem, system=system)) == text


@pytest.mark.parametrize("directory", EITHER)
def test_bytes_of_tokens_join_to_the_text(directory):
    tokenizer = load_tokenizer(directory)
    table = token_bytes(tokenizer, len(tokenizer))
    for problem in PROBLEMS:
        assert b"".join(table[i] for i in encode(tokenizer, problem)).decode() == problem


@pytest.mark.parametrize("directory", EITHER)
@pytest.mark.parametrize("delimiter", [DELIMITER, "\n"])
def test_the_delimiter_is_found_across_tokens(directory, delimiter):
    """A text's tokens give as many ends of steps as the text has delimiters, each in its token."""
    tokenizer = load_tokenizer(directory)
    pieces = token_bytes(tokenizer, len(tokenizer))
    table = make_step_table(pieces, delimiter)
    text = (
        "First we add 3.\n\nThen 4 more.\n\n\nSo far 7.\nThat is all .\n\n\n\nThe answer is 7.\n\n"
    )
    ids = encode(tokenizer, text)
    following, lengths = np.asarray(table.next_state_VxQ), np.asarray(table.end_VxQ)
    state, ends = 0, []
    for position, token in enumerate(ids):
        if lengths[token, state]:
            ends.append(position)
        state = following[token, state]
    written, found, start = b"", [], 0
    for position, token in enumerate(ids):
        written += pieces[token]
        if delimiter.encode() in written[start:]:
            found.append(position)
            start = len(written)
    assert ends == found
    assert len(found) >= text.count(delimiter) // 2


@pytest.mark.parametrize("directory", [pytest.param(SMOLLM2, marks=needs(SMOLLM2))])
def test_what_is_saved_is_what_was_loaded(directory, tmp_path):
    config, params = load_pretrained(directory)
    save_pretrained(params, config, tmp_path / "saved", tokenizer_from=directory)
    again_config, again = load_pretrained(tmp_path / "saved")
    assert again_config == config
    jax.tree.map(np.testing.assert_array_equal, params, again)
    theirs, ours = load_tokenizer(directory), load_tokenizer(tmp_path / "saved")
    assert [ours.encode(p) for p in PROBLEMS] == [theirs.encode(p) for p in PROBLEMS]
