"""Plans from config.json files alone."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.plan.devices import find_devices, read_mesh

QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_act": "silu",
    "head_dim": 128, "num_key_value_heads": 8, "vocab_size": 151936, "rms_norm_eps": 1e-6,
    "rope_theta": 1000000, "max_position_embeddings": 40960, "attention_bias": False,
    "torch_dtype": "bfloat16",
}  # fmt: skip
SIZES = {
    "4b": {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36,
           "num_attention_heads": 32, "tie_word_embeddings": True},
    "32b": {"hidden_size": 5120, "intermediate_size": 25600, "num_hidden_layers": 64,
            "num_attention_heads": 64, "tie_word_embeddings": False},
}  # fmt: skip


def plan(*arguments: str, fails: bool = False) -> str:
    """In a process of its own: the number of devices is fixed when jax starts."""
    command = [sys.executable, "-m", "experiments.plan", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert bool(done.returncode) == fails, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stderr if fails else done.stdout


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory) -> dict[str, Path]:
    """Directories with a config.json and nothing else."""
    root = tmp_path_factory.mktemp("models")
    for name, fields in SIZES.items():
        (root / name).mkdir()
        (root / name / "config.json").write_text(json.dumps({**QWEN3, **fields}))
    return {name: root / name for name in SIZES}


def big(qwen3, *more: str) -> tuple[str, ...]:
    return (
        "--config=configs/motab.py", f"--config.student.path={qwen3['4b']}",
        f"--config.teacher.path={qwen3['32b']}", "--config.student.dtype=bfloat16",
        "--config.teacher.dtype=bfloat16", "--config.prompt.max_tokens=1024",
        "--config.motab.max_total=31744", "--config.motab.max_correction=8192", *more,
    )  # fmt: skip


@pytest.mark.slow
def test_a_large_pair_is_weighed_without_weights(qwen3):
    text = plan(*big(qwen3), "--mesh=data=2,fsdp=8,tensor=8", "--config.batch_size=128",
                "--programs=", "--device_memory=95")  # fmt: skip
    # 64 layers x 8 heads x 128 numbers x 2 (keys, values) x 2 bytes x 32,768 positions; and 36
    # layers.
    assert "of 32,768 positions, in all: student 4.8 GB, teacher 8.6 GB" in text
    # 4,022,468,096 parameters in 4 bytes, two moments, and 32,762,123,264 in 2 bytes, over 64
    # devices.
    for group, whole, held in (
        ("student", "16.1 GB", "252 MB"),
        ("optimiser", "32.2 GB", "504 MB"),
        ("teacher", "65.5 GB", "1.0 GB"),
    ):
        assert re.search(rf"{group}\s+\d+\s+{whole}\s+{held}", text), (group, text)
    # A device holds 1 / 8 of a row's heads: (4.83 + 8.59) GB / 8, and what else a row has.
    assert (
        "A row of the rollout, caches and all, on each device that has a part of it: 1.7 GB" in text
    )
    slots = int(re.search(r"at the longest text: ([\d,]+)", text)[1].replace(",", ""))
    assert slots % 16 == 0 and 600 < slots < 900


@pytest.mark.slow
def test_programs_of_a_small_pair_are_measured():
    text = plan("--config=configs/opd.py", "--mesh=data=2,fsdp=2,tensor=2", "--device_memory=16")
    assert "train step, 32 x 240 tokens, attention 'xla'" in text
    assert "rollout, 8 tokens of 32 rows" in text and "prefill of 32 prompts" in text
    for kind in ("all-reduce", "all-gather"):
        assert kind in text
    assert "The train step fits in 16 GB." in text


@pytest.mark.slow
@pytest.mark.parametrize(
    "config", ["atesd.py", "grpo.py", "pretrain.py:student", "gkd.py", "kd.py"]
)
def test_every_method_has_a_plan(config):
    text = plan(f"--config=configs/{config}", "--mesh=fsdp=2,tensor=2", "--programs=train")
    assert "train step" in text and "collectives: " in text


@pytest.mark.slow
def test_flops_are_those_of_a_device(tmp_path):
    """Twice the devices along the batch, half of the products on each; parameters as a whole."""

    def flops(mesh: str) -> float:
        text = plan("--config=configs/pretrain.py:student", f"--mesh={mesh}", "--programs=train")
        return float(re.search(r"([\d.e+]+) FLOPs", text)[1])

    one, four = flops("data=1"), flops("data=4")
    assert four == pytest.approx(one / 4, rel=0.02)
    # Forward and backward: 6 per parameter and token, and 12 T^2 per head's numbers and layer.
    least = 6 * 32 * 207 * 153_728 + 12 * 207**2 * 64 * 3 * 32
    assert least < one < 1.25 * least


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--mesh=data=3",), "does not divide over the 3 devices along the batch"),
        (("--mesh=tensor=4",), "axis 'vocab' of size 98 does not divide over mesh axes ('tensor',)"),
        pytest.param(("--mesh=model=2",), "'model=2' should be an axis", marks=pytest.mark.slow),
        pytest.param(("--mesh=data=-1",), "-1 needs a --topology", marks=pytest.mark.slow),
        pytest.param(("--mesh=data=2", "--programs=dream"), "'dream' is not one of", marks=pytest.mark.slow),
        pytest.param(("--mesh=data=2", "--config.student.rules.heads=('model',)"), "student.rules.heads=", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_in_a_line(arguments, message):
    text = plan("--config=configs/opd.py", *arguments, fails=True)
    assert message in text and "Traceback" not in text


def test_meshes_are_read():
    assert read_mesh("data=8,fsdp=16,tensor=2") == {"data": 8, "fsdp": 16, "tensor": 2}
    assert read_mesh(None) == {"data": 1, "fsdp": 1, "tensor": 1}
    for wrong in ("data", "data=2,data=2", "tensor=two"):
        with pytest.raises(ValueError, match="--mesh="):
            read_mesh(wrong)
    with pytest.raises(ValueError, match="give every axis"):
        find_devices({"data": -1, "fsdp": 1, "tensor": 1}, None)
