"""The monitor and the whole rollout of a real pair, against plain code with transformers' logits."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import motab
from distill.steps.table import make_step_table
from models import load_config, load_pretrained
from models.text.tokenizer import encode, eos_ids, load_tokenizer, render_prompt, token_bytes

from ..motab import reference
from ..motab.test_rollout_reference import compare
from .real_models import LARGE, PROBLEMS, SMALL, needs, torch_logits

pytestmark = needs(SMALL, LARGE)

SETTINGS = motab.MotabSettings(
    delimiter="\n",
    gamma_0=0.5,
    student_temperature=0.6,
    teacher_temperature=0.6,
    max_step_tokens=48,
    max_total=72,
    max_correction=24,
    min_correction=4,
    chunk=16,
)


class TorchModel(reference.Model):
    """As the reference's, with transformers' logits."""

    def __init__(self, directory, config, vocab):
        super().__init__(None, config, vocab, 0)
        self.directory = directory

    def logits(self, context):
        return np.float64(torch_logits(self.directory, context)[-1, : self.vocab])


@pytest.fixture(scope="module")
def pair():
    tokenizer = load_tokenizer(SMALL)
    student, teacher = (load_config(d) for d in (SMALL, LARGE))
    return tokenizer, student, teacher, min(len(tokenizer), student.vocab_size, teacher.vocab_size)


@pytest.fixture(scope="module")
def written(pair):
    """Five trajectories, with their prompts. Our weights are gone before transformers' are read."""
    tokenizer, _, _, vocab = pair
    (student_config, student), (teacher_config, teacher) = (
        load_pretrained(d, dtype="float32", stacked=False) for d in (SMALL, LARGE)
    )
    prompts = [render_prompt(tokenizer, problem) for problem in PROBLEMS[:5]]
    lengths = np.array([len(p) for p in prompts])
    padded = np.zeros((len(prompts), lengths.max()), np.int32)
    for row, prompt in zip(padded, prompts, strict=True):
        row[: len(prompt)] = prompt
    table = make_step_table(token_bytes(tokenizer, student_config.vocab_size), SETTINGS.delimiter)
    rollout = motab.make_rollout(
        student_config, teacher_config, SETTINGS, table, encode(tokenizer, SETTINGS.delimiter),
        encode(tokenizer, SETTINGS.revision_text), eos_ids(tokenizer, SMALL), vocab,
    )  # fmt: skip
    ids = jnp.arange(len(prompts))
    out = jax.jit(rollout)(student, teacher, padded, lengths, ids, jax.random.key(0))
    return prompts, *jax.device_get(out)


def test_values_and_entropies_are_those_of_plain_torch(pair, written):
    """V (Eq. 5) and gamma, which holds H (Eq. 6), of every step that was judged."""
    tokenizer, config, _, vocab = pair
    pieces = token_bytes(tokenizer, config.vocab_size)
    steps = 0
    prompts, trajectories, record = written
    for b, prompt in enumerate(prompts):
        count = int(record.num_steps_B[b])
        ends = record.step_ends_BxL[b, :count].tolist()
        text = trajectories.tokens_BxT[b, : len(prompt) + ends[-1]].tolist()
        logits = np.float64(torch_logits(LARGE, text)[:, :vocab])
        start = 0
        for k, end in enumerate(ends):
            tokens = text[len(prompt) + start : len(prompt) + end]
            rows = logits[len(prompt) + start - 1 : len(prompt) + end - 1]
            log_q = [reference.log_softmax(row) for row in rows]
            costs = [-q[token] for q, token in zip(log_q, tokens, strict=True)]
            value = reference.value(
                tokens, costs, pieces, SETTINGS.delimiter.encode(), bool(record.delimited_BxL[b, k])
            )
            top = reference.log_softmax(np.sort(log_q[0])[::-1][: SETTINGS.entropy_top_k])
            entropy = -np.sum(np.exp(top) * top)
            assert abs(value - record.values_BxL[b, k]) < 1e-4
            gamma = SETTINGS.gamma_0 * math.exp(-SETTINGS.alpha * entropy)
            assert abs(gamma - record.boundaries_BxL[b, k]) < 1e-4
            start, steps = end, steps + 1
    assert steps >= 15


def test_the_rollout_is_algorithm_1(pair, written):
    tokenizer, student_config, teacher_config, vocab = pair
    student, teacher = (
        TorchModel(d, c, vocab) for d, c in ((SMALL, student_config), (LARGE, teacher_config))
    )
    prompts, trajectories, record = written
    for b, prompt in enumerate(prompts):
        row = reference.rollout(
            student, teacher, prompt, b, jax.random.key(0), SETTINGS, SETTINGS.gamma_0,
            token_bytes(tokenizer, student_config.vocab_size),
            encode(tokenizer, SETTINGS.delimiter), encode(tokenizer, SETTINGS.revision_text),
            eos_ids(tokenizer, SMALL),
        )  # fmt: skip
        assert row.margin > 1e-3, "another key: rounding may decide this one"
        compare(row, trajectories, record, b, len(prompt))
    assert any(record.breach_B >= 0) and any(record.breach_B < 0)
