"""What is measured: models, shapes, and the request that every measuring process gets."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from models.config import ModelConfig

WHAT = ("generate", "train", "onpolicy", "motab", "loss", "engine", "packing", "compile")
PEERS = ("hf", "torch", "trl", "tunix", "naive")


def _qwen3(layers: int, hidden: int, heads: int, kv: int, head: int, mlp: int, vocab: int):
    # Tied, as Qwen3 is up to 4B. Tunix knows no other rope_theta than Qwen3's.
    return ModelConfig(
        family="qwen3",
        num_layers=layers,
        hidden_size=hidden,
        num_heads=heads,
        num_kv_heads=kv,
        head_dim=head,
        intermediate_size=mlp,
        vocab_size=vocab,
        rope_theta=1e6,
        qk_norm=True,
        tie_embeddings=True,
        max_positions=4096,
    )


MODELS = {
    "micro": _qwen3(1, 32, 2, 1, 16, 64, 128),
    "tiny": _qwen3(4, 256, 4, 2, 64, 768, 4096),
    "small": _qwen3(8, 512, 8, 4, 64, 1536, 32000),
    "qwen3-1.7b": _qwen3(28, 2048, 16, 8, 128, 6144, 151936),
}


@dataclasses.dataclass(frozen=True)
class Shape:
    """Rows, and tokens per row of prompt and completion."""

    batch: int
    prompt: int
    new: int


@dataclasses.dataclass(frozen=True)
class LossShape:
    """Tokens and hidden size; the vocabularies of which memory and time are taken.

    The dense loss does not fit at the larger one, so that its time is taken at the smaller one, on
    fewer tokens.
    """

    tokens: int = 8192
    hidden: int = 1024
    vocab_size: int = 151_936
    timed_tokens: int = 2048
    timed_vocab_size: int = 32_000


@dataclasses.dataclass(frozen=True)
class MotabShape:
    """MOTAB's synthesis. Lengths are geometric: every token ends the text with chance 1 / mean."""

    prompts: int = 64
    batch: int = 16
    prompt: int = 64
    mean: int = 64
    step: int = 16
    max_total: int = 256
    chunk: int = 32


@dataclasses.dataclass(frozen=True)
class EngineShape:
    """Arguments of `experiments.bench_engine.measure`: lengths are log-normal."""

    rows: int = 192
    slots: int = 16
    prompt: int = 64
    median: float = 40
    longest: int = 512


@dataclasses.dataclass(frozen=True)
class Workload:
    """The shapes of one model's measurements."""

    dtype: str = "float32"
    decode: Shape = Shape(16, 64, 256)
    train: Shape = Shape(8, 64, 192)
    motab: MotabShape = MotabShape()
    engine: EngineShape = EngineShape()
    loss: LossShape = LossShape()


WORKLOADS = {
    "micro": Workload(
        decode=Shape(2, 4, 8),
        train=Shape(2, 4, 8),
        motab=MotabShape(prompts=4, batch=2, prompt=8, mean=8, step=4, max_total=32, chunk=4),
        engine=EngineShape(rows=8, slots=4, prompt=4, median=4, longest=16),
        loss=LossShape(64, 16, 512, 32, 128),
    ),
    # Context 2k at the end of decoding.
    "qwen3-1.7b": Workload(
        dtype="bfloat16", decode=Shape(64, 1024, 1024), train=Shape(8, 512, 1536)
    ),
}

OPTIMIZER = {
    "learning_rate": 1e-5,
    "b1": 0.9,
    "b2": 0.95,
    "eps": 1e-8,
    "weight_decay": 0.1,
    "clip_norm": 1.0,
}


def workload(model: str) -> Workload:
    """The shapes that go with a model of `MODELS`, or with a directory."""
    return WORKLOADS.get(model, Workload())


def request(
    what: str, variant: str, model: str, student: Path, teacher: Path, vocab_size: int
) -> dict[str, Any]:
    """What a measuring process is told, as JSON."""
    return {
        "what": what,
        "variant": variant,
        "student": str(student),
        "teacher": str(teacher),
        "vocab_size": vocab_size,
        "seed": 0,
        "optimizer": OPTIMIZER,
        **dataclasses.asdict(workload(model)),
    }
