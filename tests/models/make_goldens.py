"""Writes `goldens/` with transformers on torch: `python tests/models/make_goldens.py`.

Needs the [parity] extra. Stored are logits at some positions, and greedy continuations.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

# Twice the tolerance of the tests: within it, another token could rightly be the most likely.
SMALLEST_MARGIN = 4e-4


def torch_model(path: Path):
    """transformers' model of a checkpoint directory, in float32; all tensors must match."""
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(
        path, dtype="float32", attn_implementation="eager", output_loading_info=True
    )
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not info[problem], (path, problem, info[problem])
    return model.eval()


def torch_logits(model, tokens: np.ndarray) -> np.ndarray:
    import torch

    with torch.no_grad():
        return model(torch.tensor(tokens, dtype=torch.long)).logits.numpy()


def torch_greedy(model, prompt: np.ndarray, new_tokens: int) -> tuple[np.ndarray, float]:
    """The most likely continuation, and the smallest gap between the two best logits."""
    tokens, margin = list(prompt), np.inf
    for _ in range(new_tokens):
        logits = torch_logits(model, np.array([tokens]))[0, -1]
        best = np.sort(logits)[-2:]
        margin = min(margin, float(best[1] - best[0]))
        tokens.append(int(np.argmax(logits)))
    return np.array(tokens[len(prompt) :], np.int16), margin


def golden(case: str, directory: Path) -> dict[str, np.ndarray]:
    """What transformers computes for one case."""
    from golden_cases import (
        NEW_TOKENS,
        compared_positions,
        ragged_prompts,
        sequences,
        write_checkpoint,
    )

    model = torch_model(write_checkpoint(case, directory))
    logits = torch_logits(model, sequences(case))[:, compared_positions(case)]
    prompts, lengths = ragged_prompts(case)
    rows = [torch_greedy(model, p[:n], NEW_TOKENS) for p, n in zip(prompts, lengths, strict=True)]
    return {
        "logits": logits,
        "greedy": np.stack([tokens for tokens, _ in rows]),
        "margin": np.float32(min(margin for _, margin in rows)),
    }


def main() -> None:
    from golden_cases import CONFIGS, GOLDENS

    GOLDENS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        for case in CONFIGS:
            arrays = golden(case, Path(directory))
            print(f"{case}: smallest margin {arrays['margin']:.2e}")
            if arrays["margin"] < SMALLEST_MARGIN:
                raise SystemExit(f"{case}: two tokens nearly tie; choose another seed.")
            np.savez_compressed(GOLDENS / f"{case}.npz", **arrays)


if __name__ == "__main__":
    here = Path(__file__).resolve()
    sys.path[:0] = [str(here.parent), str(here.parents[2])]
    main()
