"""Prompts and responses must fit into both models' positions."""

from __future__ import annotations

import pytest

from configs import motab, sft, topd
from experiments.config.read import read_config
from experiments.pair.positions import check_positions
from models import ModelConfig

MODEL = ModelConfig("qwen3", 64, 32, 48, 1, 2, 1, 16, qk_norm=True, max_positions=100)


def test_a_text_may_be_as_long_as_a_context_and_no_longer():
    lengths = {"prompt.max_tokens=40 and evaluation.max_tokens=60": 100}
    check_positions(lengths, {"student": MODEL, "teacher": None})
    short = MODEL.replace(max_positions=99)
    message = r"prompt\.max_tokens=40 and evaluation\.max_tokens=60 are 100 .* teacher has 99"
    with pytest.raises(ValueError, match=message):
        check_positions(lengths, {"student": MODEL, "teacher": short})


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        (motab.get_config(), {"evaluation.max_tokens=192": 240, "motab.max_total=192": 240}),
        (topd.get_config(), {"windows.tokens=16": 256}),
        (sft.get_config("references"), {"sft.max_tokens=208": 208}),
    ],
)
def test_a_config_says_how_long_its_texts_may_be(config, longest):
    found = read_config(config).lengths()
    for name, tokens in longest.items():
        assert tokens in [n for what, n in found.items() if what.endswith(name)]
