"""Real models, where a machine has them: `MOTAB_REAL_MODELS`, or ~/.cache/real-models."""

import functools
import os
from pathlib import Path

import numpy as np
import pytest

MODELS = Path(os.environ.get("MOTAB_REAL_MODELS") or "~/.cache/real-models").expanduser()
SMOLLM2, SMALL, LARGE = (
    MODELS / name
    for name in (
        "smollm2-135m-instruct",
        "qwen2.5-coder-0.5b-instruct",
        "qwen2.5-coder-1.5b-instruct",
    )
)
PROBLEMS = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in "
    "May. How many clips did Natalia sell altogether in April and May?",
    "What is 17 * 6?",
    "A robe takes 2 bolts of blue fiber and half that much white fiber. How many bolts in total "
    "does it take?",
    "Ümit has 3 boxes with 12 größere Äpfel each. How many Äpfel? 🍎",
    "Solve $x^2 - 5x + 6 = 0$ and give both roots.",
    "Tom has 5 dogs.\n\nEach dog eats 2 cups a day. How many cups do they eat in a week?",
    "Write the sum of the first 100 positive integers.",
    "If a train travels 60 miles in 1.5 hours, what is its speed?",
)


def needs(*directories: Path):
    """Skips a test where one of the models is not there, or torch is not."""
    missing = [directory.name for directory in directories if not directory.is_dir()]
    return [
        pytest.mark.real,
        pytest.mark.slow,
        pytest.mark.skipif(bool(missing), reason=f"needs {missing} in MOTAB_REAL_MODELS"),
    ]


@functools.lru_cache(maxsize=2)
def torch_model(directory: Path):
    """The model as transformers reads it, in float32."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    return model.eval()


def torch_logits(directory: Path, tokens) -> np.ndarray:
    """Logits [T, V] behind every token of one text."""
    import torch

    with torch.no_grad():
        return torch_model(directory)(torch.tensor([list(tokens)])).logits[0].numpy()
