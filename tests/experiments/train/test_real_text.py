"""Real text from end to end: GSM8K, Qwen3's tokenizer and template, models with its 151,936 tokens.

The models are Qwen3's in shape but tiny, and their weights random: what they write is noise, and
everything around them is real.
"""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from transformers import AutoTokenizer, GenerationConfig

import models
from configs import motab
from experiments import export, paired
from experiments.evaluate import evaluation as evaluate
from experiments.train.loop import run
from experiments.workdir.workdir import read_log
from models.text.tokenizer import load_tokenizer

VOCAB = 151_936
FORMAT = "{problem}\nPut your final answer in \\boxed{}."
ASKED = "Natalia sold clips to 48 of her friends"

pytestmark = pytest.mark.slow


def make_model(path, tokenizer, hidden: int, seed: int):
    config = models.ModelConfig(
        family="qwen3", vocab_size=VOCAB, hidden_size=hidden, intermediate_size=2 * hidden,
        num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, qk_norm=True, tie_embeddings=True,
        rope_theta=1e6, max_positions=4096,
    )  # fmt: skip
    params = models.init(jax.random.key(seed), config)
    models.save_pretrained(params, config, path, tokenizer_from=tokenizer)
    return path


def small(pair) -> ConfigDict:
    config = motab.get_config("online-smoke")
    config.steps, config.batch_size, config.synthesis.sync_every = 2, 4, 1
    config.checkpoint.every = 2
    for role, path in pair.items():
        config[role].path = str(path)
        config[role].thinking = "off"
    config.prompt.format, config.prompt.max_tokens = FORMAT, 256
    for name in ("train", "validation", "test"):
        config.data[name].name, config.data[name].size = "sample/gsm8k", 8
    config.data.validation.size = config.data.test.size = 2
    config.data.long.name = ""
    config.motab.max_total, config.motab.max_correction = 48, 24
    config.motab.min_correction, config.motab.max_step_tokens, config.motab.chunk = 8, 16, 16
    config.evaluation.max_tokens, config.evaluation.batch_size = 8, 2
    config.samples.every = 1
    return config


@pytest.fixture(scope="module")
def pair(qwen3_directory, tmp_path_factory):
    root = tmp_path_factory.mktemp("pair")
    return {
        "student": make_model(root / "student", qwen3_directory, 32, 0),
        "teacher": make_model(root / "teacher", qwen3_directory, 64, 1),
    }


@pytest.fixture(scope="module")
def finished(pair, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    return workdir, run(small(pair), workdir)


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "model"
    flags = ["--workdir", str(finished[0]), "--out", str(out)]
    assert export.main([*flags, "--max_shard_size", "10MB"]) == 0
    return out


def test_two_steps_of_motab(finished):
    workdir, results = finished
    train = [r for r in read_log(workdir / "metrics.jsonl") if r["kind"] == "train"]
    assert [r["step"] for r in train] == [1, 2]
    assert all(np.isfinite(r["loss"]) and r["loss"] > 0 for r in train)
    # Noise never passes the boundary: the teacher takes over and writes in every trajectory.
    assert results["synthesis"]["backtracked"] == 1.0
    assert results["synthesis"]["tokens"]["teacher"] > 0
    rows = read_log(workdir / "trajectories.jsonl")
    assert any(part["source"] == "revision" for row in rows for part in row["parts"])
    assert (results["before"]["n"], results["after"]["n"]) == (2, 2)


def test_samples_of_a_run_can_be_compared(finished):
    samples = finished[0] / "samples"
    result = paired.compare(
        *(paired.read_samples(samples / f"{name}-test.jsonl") for name in ("before", "after"))
    )
    assert result["n"] == 2 and -1 <= result["difference"] <= 1


def test_the_export_is_what_was_trained(finished, exported, pair):
    trained = models.load_pretrained(exported)[1]
    before = models.load_pretrained(pair["student"])[1]
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), trained, before)
    assert all(jax.tree.leaves(moved))
    assert len(list(exported.glob("model-*.safetensors"))) > 1
    ours, theirs = load_tokenizer(exported), AutoTokenizer.from_pretrained(str(exported))
    message = [{"role": "user", "content": FORMAT.replace("{problem}", ASKED)}]
    switch = {"add_generation_prompt": True, "enable_thinking": False, "return_dict": False}
    assert theirs.apply_chat_template(message, **switch) == ours.apply_chat_template(
        message, **switch
    )
    assert GenerationConfig.from_pretrained(exported).eos_token_id == [151645, 151643]
    card = (exported / "README.md").read_text()
    assert "| after |" in card and '"max_correction": 24' in card


def test_evaluating_the_export(exported, tmp_path):
    flags = ["--model", str(exported), "--data", "sample/gsm8k", "sample/math", "--size", "2"]
    flags += ["--n", "2", "--max_new_tokens", "8", "--thinking", "off", "--prompt_format", FORMAT]
    assert evaluate.main([*flags, "--out", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results["sources"]) == ["gsm8k", "math"] and results["n"] == 4
    records = [json.loads(x) for x in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert len(records) == 8 and records[0]["problem"].startswith(ASKED)


@pytest.mark.parity
def test_transformers_computes_the_same_logits(exported):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(str(exported))
    ids = tokenizer(f"<|im_start|>user\n{ASKED} in April.<|im_end|>\n", return_tensors="np")[
        "input_ids"
    ]
    config, params = models.load_pretrained(exported, dtype="float32")
    with jax.default_matmul_precision("highest"):
        ours = np.asarray(models.forward(params, config, ids.astype(np.int32)))
    theirs = AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32)
    with torch.no_grad():
        logits = theirs(torch.asarray(ids)).logits.numpy()
    assert ours.shape == logits.shape == (1, ids.shape[1], VOCAB)
    np.testing.assert_allclose(ours, logits, rtol=0, atol=2e-4)
    # And it writes from its own generation config.
    written = theirs.generate(torch.asarray(ids), max_new_tokens=3, do_sample=False)
    assert written.shape[1] > ids.shape[1]
