"""The tales' embedded models: one solves them, one half of them, and V of a wrong step is in between."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from configs import pretrain
from experiments.data.batches import pad_rows
from experiments.data.sources import load_source
from experiments.evaluate.__main__ import main
from experiments.tasks.tale import TaleSource
from models import forward, load_pretrained
from models.embedded import model_directory
from models.text.tokenizer import encode, load_tokenizer, render_prompt


@pytest.mark.parametrize("role", ["tale_teacher", "tale_student"])
def test_pretraining_has_room_for_all_but_the_longest(role):
    config = pretrain.get_config(role)
    tokenizer = load_tokenizer(model_directory(f"embedded:{role.replace('_', '-')}"))
    examples = [load_source(config.data.train)[i] for i in range(1000)]
    prompts = np.array([len(render_prompt(tokenizer, e.problem)) for e in examples])
    texts = prompts + [len(encode(tokenizer, e.reference)) + 1 for e in examples]
    assert 0.9 * config.prompt.max_tokens < prompts.max() <= config.prompt.max_tokens
    assert np.mean(texts > config.sft.max_tokens) < 0.01
    assert len(tokenizer) == config.student.init.vocab_size


@pytest.mark.parametrize(
    ("role", "low", "high"),
    [("teacher", 0.95, 1), pytest.param("student", 0.3, 0.7, marks=pytest.mark.slow)],
)
def test_the_teacher_solves_tales_and_the_student_half_of_them(role, low, high, tmp_path):
    what = ["--model", f"embedded:tale-{role}", "--data", "tale/test", "--n", "1", "--size", "64"]
    assert main([*what, "--max_new_tokens", "96", "--out", str(tmp_path)]) == 0
    assert low <= json.loads((tmp_path / "results.json").read_text())["accuracy"] <= high


def test_one_wrong_number_leaves_v_in_the_middle_of_its_range():
    """What chains lack: there V of a wrong step is near 0, whatever gamma_0."""
    directory = model_directory("embedded:tale-teacher")
    config, params = load_pretrained(directory, dtype="float32")
    tokenizer = load_tokenizer(directory)
    rows, ends = [], []
    for example in TaleSource("validation", size=64):
        given, step, *_ = example.reference.split(".\n\n")
        wrong = f"{step[:-1]}{(int(step[-1]) + 1) % 10}"
        prompt = [*render_prompt(tokenizer, example.problem), *encode(tokenizer, f"{given}.\n\n")]
        for text in (step, wrong):
            rows.append([*prompt, *encode(tokenizer, text)])
            ends.append((len(prompt), len(rows[-1])))
    tokens_BxT, _ = pad_rows(rows, 128)
    log_probs_BxTxV = np.asarray(jax.nn.log_softmax(forward(params, config, tokens_BxT)))
    values = np.array(
        [
            np.exp(np.mean([log_probs_BxTxV[b, t - 1, tokens_BxT[b, t]] for t in range(*span)]))
            for b, span in enumerate(ends)
        ]
    )
    right, wrong = values[::2], values[1::2]
    assert np.median(right) > 0.9
    assert 0.4 < np.median(wrong) < 0.7
