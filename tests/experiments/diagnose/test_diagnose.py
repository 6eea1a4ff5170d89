"""Diagnostics of exposure bias: against NumPy, identical models, batches, command and errors."""

from __future__ import annotations

import json
import warnings

import jax
import numpy as np
import pytest

from experiments.diagnose import diagnosis as module
from experiments.diagnose.__main__ import main
from experiments.diagnose.diagnosis import diagnose
from experiments.diagnose.picture import draw
from experiments.diagnose.settings import DiagnosisOptions
from experiments.pair.model import Model
from experiments.tasks.chain import ChainSource
from experiments.tasks.chain_tokenizer import build_chain_tokenizer
from models import Generation, ModelConfig, forward, init
from models.embedded import EMBEDDED
from models.text.tokenizer import encode, render_prompt

TOKENIZER = build_chain_tokenizer()
EOS = TOKENIZER.eos_token_id
VOCAB = len(TOKENIZER)
CONFIG = ModelConfig(
    family="qwen3",
    vocab_size=112,
    hidden_size=16,
    intermediate_size=32,
    num_layers=1,
    num_heads=2,
    num_kv_heads=1,
    head_dim=8,
    qk_norm=True,
    max_positions=256,
)
EXAMPLES = list(ChainSource("test", size=4))


def model(seed, config=CONFIG):
    params = init(jax.random.key(seed), config)
    return Model({**params, "head": params["head"] * 8}, config)  # far from uniform


STUDENT, TEACHER = model(0), model(1, CONFIG.replace(vocab_size=128, hidden_size=24))


def diagnosed(student=STUDENT, teacher=TEACHER, **options):
    settings = {"n": 2, "max_new_tokens": 8, "temperature": 1.0, "top_p": 1.0, "bin": 3}
    settings |= {"min_problems": 2, "batch_size": 8} | options
    return diagnose(student, teacher, TOKENIZER, EXAMPLES, DiagnosisOptions(**settings))


def curves(results):
    for text, by_model in results["log_probs"].items():
        for name, curve in by_model.items():
            yield f"{text}/{name}", curve
    yield from results["kl"].items()


def test_equals_plain_numpy_on_known_texts(monkeypatch):
    texts = {
        "student": ["b=3", "1", "a+4=2.", "", "7=7=7=7=7=", "0", "b", "c="],
        "teacher": ["+8", "b=31..", "9", "b:", "3*", "5=5", "4", "+"],
    }
    texts = {
        role: [np.array([*encode(TOKENIZER, t), EOS][:8]) for t in rows]
        for role, rows in texts.items()
    }
    roles_seen = []

    def fake(params, config, prompts, lengths, key, max_new_tokens, row_ids, **_):
        role = "student" if config is STUDENT.config else "teacher"
        roles_seen.append((role, tuple(np.asarray(jax.random.key_data(key)).tolist())))
        tokens = np.zeros((len(row_ids), max_new_tokens), np.int32)
        for b, row in enumerate(row_ids):
            tokens[b, : len(texts[role][row])] = texts[role][row]
        counts = np.array([len(texts[role][row]) for row in row_ids], np.int32)
        zeros = np.zeros(tokens.shape, np.float32)
        return Generation(jax.numpy.asarray(tokens), jax.numpy.asarray(counts), zeros, zeros)

    monkeypatch.setattr(module, "generate", fake)
    with jax.default_matmul_precision("highest"):
        results = diagnosed(batch_size=3)
    assert len(set(roles_seen)) == 2  # the two never share noise

    jitted = jax.jit(forward, static_argnums=1)

    def log_p(pair, prompt, text):
        row, end = np.zeros((1, 48), np.int32), len(prompt) + len(text)
        row[0, :end] = [*prompt, *text]
        logits = np.asarray(jitted(pair.params, pair.config, row), np.float64)[
            0, len(prompt) - 1 : end - 1, :VOCAB
        ]
        logits = logits - logits.max(axis=-1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))

    expected = {name: np.full((8, 9), np.nan) for name, _ in curves(results)}
    for row in range(8):
        prompt = render_prompt(TOKENIZER, EXAMPLES[row // 2].problem)
        for name, other, pair in (
            ("student", "teacher", STUDENT),
            ("teacher", "student", TEACHER),
        ):
            says = {role: log_p(pair, prompt, texts[role][row]) for role in texts}
            for role, text in ((role, texts[role][row]) for role in texts):
                chosen = says[role][np.arange(len(text)), text]
                expected[f"{role}_text/{name}"][row, : len(text)] = chosen
            both = min(map(len, says.values()))
            a, b = says[name][:both], says[other][:both]
            expected[name][row, :both] = (np.exp(a) * (a - b)).sum(axis=-1)
    for name, curve in curves(results):
        values = expected[name].reshape(4, 2, 3, 3)  # problem, sample, bin, position
        seen = left_out = 0
        for k in range(3):
            tokens = [v[~np.isnan(v)] for v in values[:, :, k]]
            means = [v.mean() for v in tokens if v.size]
            if len(means) < 2:
                left_out += len(means)
                continue
            point = curve["bins"][seen]
            seen += 1
            assert (point["start"], point["end"]) == (3 * k, min(3 * k + 3, 8))
            assert point["problems"] == len(means)
            assert point["tokens"] == sum(v.size for v in tokens)
            assert point["mean"] == pytest.approx(np.mean(means), abs=5e-5)
        assert (seen, left_out) == (len(curve["bins"]), curve["left_out"])
    assert results["log_probs"]["teacher_text"]["student"]["left_out"] == 1
    lengths = [len(t) for t in texts["student"]]
    assert results["texts"]["student"]["mean_length"] == np.mean(lengths)
    assert results["texts"]["student"]["truncation_rate"] == 1 / 8


@pytest.mark.slow
def test_batches_do_not_matter():
    whole = diagnosed()
    for name, curve in curves(diagnosed(batch_size=3)):
        first = dict(curves(whole))[name]
        assert len(curve["bins"]) == len(first["bins"]) == 3
        for a, b in zip(curve["bins"], first["bins"], strict=True):
            assert a == pytest.approx(b, abs=1e-5)
    assert dict(curves(diagnosed(seed=1)))["student"] != whole["kl"]["student"]


def test_identical_models():
    results = diagnosed(STUDENT, STUDENT, n=32, batch_size=128, bin=8)
    by_text = [results["log_probs"][f"{role}_text"] for role in ("student", "teacher")]
    for text in by_text:
        assert text["student"]["overall"] == pytest.approx(text["teacher"]["overall"], abs=1e-5)
    s, t = (text["student"]["overall"] for text in by_text)
    assert s["mean"] != t["mean"]  # other samples of the same distribution
    assert s["mean"] == pytest.approx(t["mean"], rel=0.1)
    kl = [results["kl"][role]["overall"]["mean"] for role in ("student", "teacher")]
    assert kl[0] == pytest.approx(kl[1], rel=0.2)
    assert min(kl) > 0.1


def test_identical_texts_have_no_divergence():
    results = diagnosed(STUDENT, STUDENT, temperature=0.0)
    for curve in results["kl"].values():
        for point in curve["bins"]:
            assert (point["mean"], point["low"], point["high"]) == (0, 0, 0)
    texts = results["log_probs"]
    assert texts["student_text"]["student"] == texts["teacher_text"]["student"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n=0"),
        ({"bin": 0}, "bin=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"min_problems": 1}, "min_problems=1"),
        ({"min_problems": 5}, r"4 problems.*min_problems=5"),
        ({"max_new_tokens": 250}, r"max_new_tokens=250.*256 positions"),
        ({"top_p": 0.0}, "top_p=0"),
    ],
)
def test_bad_requests_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        diagnosed(**options)


PAIR = ["--student", "embedded:student", "--teacher", "embedded:teacher", "--data", "chain/test"]
FEW = ["--size", "3", "--n", "2", "--max_new_tokens", "24", "--min_problems", "2", "--bin", "6"]


def test_command_writes_numbers_and_picture(tmp_path, capsys):
    out = tmp_path / "a" / "out"
    assert main([*PAIR, *FEW, "--out", str(out)]) == 0

    def not_strict(constant):
        raise AssertionError(constant)

    results = json.loads((out / "diagnose.json").read_text(), parse_constant=not_strict)
    assert (out / "diagnose.png").read_bytes().startswith(b"\x89PNG")
    assert {p.name for p in out.iterdir()} == {"diagnose.json", "diagnose.png"}
    assert {"commit", "dirty", "versions", "device", "settings", "seconds"} <= results.keys()
    assert (results["problems"], results["samples"], results["bin"]) == (3, 2, 6)
    assert results["settings"]["student"] == "embedded:student"
    assert results["settings"]["temperature"] == 0.6
    for _, curve in curves(results):
        assert curve["bins"][0]["start"] == 0
        for point in curve["bins"]:
            assert point["low"] <= point["mean"] <= point["high"]
            assert 2 <= point["problems"] <= 3
    # Each model writes what it finds likely.
    for text, by_model in results["log_probs"].items():
        writer = text.removesuffix("_text")
        other = "teacher" if writer == "student" else "student"
        assert by_model[writer]["overall"]["mean"] > by_model[other]["overall"]["mean"]
    assert "diagnose.png" in capsys.readouterr().out.replace("\n", "")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        axes = draw(results).axes
    assert len(axes) == 6
    assert all(a.get_ylabel() for a in axes)
    drawn = axes[2].lines[1]
    bins = results["kl"]["teacher"]["bins"]
    np.testing.assert_allclose(drawn.get_ydata(), [b["mean"] for b in bins])
    np.testing.assert_allclose(drawn.get_xdata()[0], 2.5)  # positions 0 to 5


@pytest.fixture(scope="module")
def foreign_model(tmp_path_factory):
    """The embedded teacher, but for two tokens that have changed places."""
    path = tmp_path_factory.mktemp("models") / "foreign"
    path.mkdir()
    for file in (EMBEDDED / "teacher").iterdir():
        if file.name != "tokenizer.json":
            (path / file.name).symlink_to(file)
    content = json.loads((EMBEDDED / "teacher" / "tokenizer.json").read_text())
    vocab = content["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    (path / "tokenizer.json").write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (
            ["--student", "absent/model"],
            1,
            "--student: Model 'absent/model': there is no directory",
        ),
        (["--teacher", "embedded:tutor"], 1, "--teacher: 'embedded:tutor'"),
        (["--teacher", "FOREIGN"], 1, "2 of 98 ids stand for different tokens"),
        (["--data", "chain/dev"], 1, "chain/test"),
        (["--prompt_format", "solve"], 1, "prompt_format"),
        (["--bin", "0"], 2, "--bin=0 must be at least 1"),
        (["--min_problems", "4"], 1, "min_problems=4"),
        (["--out", "FILE"], 1, "FILE"),
    ],
)
def test_command_says_what_is_wrong(foreign_model, tmp_path, capsys, flags, code, message):
    (tmp_path / "FILE").touch()
    paths = {"FOREIGN": str(foreign_model), "FILE": str(tmp_path / "FILE")}
    flags = [paths.get(flag, flag) for flag in flags]
    assert main([*PAIR, *FEW, "--out", str(tmp_path / "out"), *flags]) == code
    assert message in capsys.readouterr().err
