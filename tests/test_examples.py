"""The examples in docstrings run, and what a stranger would call first has one."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = (
    "models",
    "distill",
    "motab",
    "atesd",
    "topd",
    "grpo",
    "mixtures",
    "family",
    "experiments/grading",
)
# What a reader tries first, as module and name.
FIRST = (
    ("models.config", "ModelConfig"),
    ("models.huggingface.checkpoint", "load_config"),
    ("models.huggingface.checkpoint", "load_pretrained"),
    ("models.huggingface.export", "save_pretrained"),
    ("models.parameters", "init"),
    ("models.transformer", "forward"),
    ("models.decoding.generate", "generate"),
    ("models.lora", "merge"),
    ("models.embedded", "model_directory"),
    ("models.text.tokenizer", "encode"),
    ("models.text.tokenizer", "eos_ids"),
    ("models.text.tokenizer", "render_prompt"),
    ("models.text.tokenizer", "token_bytes"),
    ("distill.losses.divergence", "forward_kl"),
    ("distill.losses.divergence", "jsd"),
    ("distill.losses.divergence", "reverse_kl"),
    ("distill.losses.divergence", "top_k_divergence"),
    ("distill.losses.divergence", "top_k_entropy"),
    ("distill.losses.signal", "Signal"),
    ("distill.steps.table", "make_step_table"),
    ("distill.train.optimizer", "make_schedule"),
    ("distill.train.packing", "first_fit_decreasing"),
    ("distill.train.state", "create_state"),
    ("distill.train.update", "make_train_step"),
    ("distill.roles", "role_key"),
    ("motab.credit", "find_backtrack"),
    ("motab.monitor", "boundary"),
    ("atesd.references", "split_reference"),
    ("distill.losses.surrogate", "group_advantages"),
    ("topd.buffer", "threshold"),
)


def modules() -> list[str]:
    """Modules whose docstrings hold an example."""
    files = sorted(file for room in ROOMS for file in (ROOT / room).rglob("*.py"))
    return [
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for file in files
        if ">>> " in file.read_text()
    ]


@pytest.mark.parametrize("name", modules())
def test_examples(name):
    module = importlib.import_module(name)
    failed, tried = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert tried
    assert not failed


@pytest.mark.parametrize(("module", "name"), FIRST)
def test_the_first_functions_have_examples(module, name):
    docstring = getattr(importlib.import_module(module), name).__doc__
    assert doctest.DocTestParser().get_examples(docstring), f"{module}.{name}"
