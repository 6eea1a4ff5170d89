"""Exporting a run's student, and refusing to."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

import experiments.export as export_module
import models
import models.huggingface.export
from distill.train.state import create_state
from experiments.checkpoints.checkpoints import Checkpoints
from experiments.export import bytes_of, export, main, student_of
from experiments.tasks.chain_tokenizer import save_chain_tokenizer
from experiments.workdir.workdir import Workdir
from models.text import eos_ids, load_tokenizer

CONFIG = models.ModelConfig(
    family="qwen3", vocab_size=40, hidden_size=16, intermediate_size=24, num_layers=2,
    num_heads=2, num_kv_heads=1, head_dim=8, qk_norm=True, tie_embeddings=True, rope_theta=5e4,
)  # fmt: skip
INIT = {
    "family": "qwen3", "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24,
    "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "head_dim": 8, "qk_norm": True,
    "tie_embeddings": True, "rope_theta": 5e4,
}  # fmt: skip


def params(seed, dtype="float32"):
    return models.init(jax.random.key(seed), CONFIG, dtype)


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y), strict=True)


@pytest.fixture
def student(tmp_path):
    """The directory a run starts from."""
    directory = tmp_path / "student"
    models.save_pretrained(params(0), CONFIG, directory)
    save_chain_tokenizer(directory)
    return directory


def new_run(path, config, dtype="float32"):
    """A workdir with two checkpoints, the first the better one."""
    with Workdir(path, config) as run, Checkpoints(run.checkpoints, keep_best=True) as saved:
        for step, accuracy in ((10, 0.8), (20, 0.5)):
            state = create_state(params(step, dtype), optax.adam(1e-3), {"r": jnp.zeros(3)})
            saved.save(step, state, {}, accuracy)
        run.write_results(
            {
                "before": {"accuracy": 0.4, "interval": [0.3, 0.5], "n": 64},
                "after": {"accuracy": 0.5, "interval": [0.4, 0.6], "n": 64, "mean_length": 12.5},
                "teacher": None,
                "commit": "abc",
            }
        )
    return path


def test_exports_what_was_trained(tmp_path, student, capsys):
    run = new_run(tmp_path / "run", {"student": {"path": str(student)}, "seed": 3})
    for checkpoint, step in (("final", 20), ("best", 10), ("10", 10)):
        out = tmp_path / f"out-{checkpoint}"
        assert main(["--workdir", str(run), "--out", str(out), "--checkpoint", checkpoint]) == 0
        assert f"Wrote step {step} " in capsys.readouterr().out
        config, loaded = models.load_pretrained(out)
        assert config == CONFIG
        assert_same(loaded, params(step))
        for file in student.iterdir():
            if file.suffix != ".safetensors" and file.name != "config.json":
                assert (out / file.name).read_bytes() == file.read_bytes()
        assert AutoConfig.from_pretrained(out).num_hidden_layers == 2
        card = (out / "README.md").read_text()
        assert f"Step {step} of" in card
        assert "| after | 0.500 | 0.400 to 0.600 | 64 | 12.5 tokens |" in card
        assert '"seed": 3' in card


def test_servers_find_what_they_look_for(tmp_path, student, capsys):
    template = tmp_path / "mine.jinja"
    template.write_text("Q {{ messages[0].content }} A")
    run = new_run(
        tmp_path / "run",
        {
            "student": {"path": str(student)},
            "prompt": {"template": str(template)},
            "evaluation": {"temperature": 0.6, "top_p": 0.95, "samples": 1},
        },
    )
    out = tmp_path / "out"
    flags = ["--workdir", str(run), "--out", str(out), "--dtype", "bfloat16"]
    assert main([*flags, "--max_shard_size", "2.5KB"]) == 0
    index = json.loads((out / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 2 and files == sorted(p.name for p in out.glob("*.safetensors"))
    config, loaded = models.load_pretrained(out)
    assert config.dtype == "bfloat16"
    assert_same(loaded, jax.tree.map(lambda x: x.astype("bfloat16"), params(20)))
    generation = GenerationConfig.from_pretrained(out)
    assert (generation.do_sample, generation.temperature, generation.top_p) == (True, 0.6, 0.95)
    assert generation.eos_token_id == [97] and generation.pad_token_id == 96
    tokenizer = AutoTokenizer.from_pretrained(out)
    message = [{"role": "user", "content": "1+1?"}]
    assert tokenizer.apply_chat_template(message, tokenize=False) == "Q 1+1? A"
    # A template that is gone stops the export.
    template.unlink()
    assert main(["--workdir", str(run), "--out", str(tmp_path / "none")]) == 1
    assert "prompt.template" in capsys.readouterr().err and not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("own", "exported"),
    [
        (5, [97, 5]),
        ([5, 6], [97, 5, 6]),
        (None, [97]),
        # One that names the tokenizer's already stays as it is.
        (97, 97),
        ([5, 97], [5, 97]),
    ],
)
def test_what_the_run_ended_its_texts_with_ends_those_of_the_export(
    tmp_path, student, own, exported
):
    """SFT teaches the tokenizer's end; a generation config that names another one stops at both."""
    values = {"temperature": 0.7, "eos_token_id": own}
    (student / "generation_config.json").write_text(json.dumps(values))
    run = new_run(tmp_path / "run", {"student": {"path": str(student)}})
    export(run, tmp_path / "out")
    found = json.loads((tmp_path / "out/generation_config.json").read_text())
    assert found == {"temperature": 0.7, "eos_token_id": exported}
    tokenizer = load_tokenizer(tmp_path / "out")
    trained = eos_ids(load_tokenizer(student), student)
    assert set(eos_ids(tokenizer, tmp_path / "out")) == set(trained)
    assert tokenizer.eos_token_id in eos_ids(tokenizer, tmp_path / "out")


def test_a_template_elsewhere_is_refused_and_one_at_home_is_found(tmp_path, student, monkeypatch):
    config = {"student": {"path": str(student)}, "prompt": {"template": "gs://bucket/a.jinja"}}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gs:" / "bucket").mkdir(parents=True)
    (tmp_path / "gs:" / "bucket" / "a.jinja").write_text("Not this one.")
    with pytest.raises(
        ValueError, match=r"prompt\.template=gs://bucket/a\.jinja: only local paths"
    ):
        export(new_run(tmp_path / "run", config), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.jinja").write_text("{{ messages[0].content }}?")
    config["prompt"]["template"] = "~/mine.jinja"
    export(new_run(tmp_path / "other", config), tmp_path / "out")
    assert (tmp_path / "out/chat_template.jinja").read_text() == "{{ messages[0].content }}?"


def test_the_template_of_the_run_is_the_only_one(tmp_path, student):
    """Servers differ in which file they ask first."""
    values = json.loads((student / "tokenizer_config.json").read_text())
    values["chat_template"] = "old"
    (student / "tokenizer_config.json").write_text(json.dumps(values))
    (student / "chat_template.json").write_text(json.dumps({"chat_template": "older"}))
    template = tmp_path / "mine.jinja"
    template.write_text("Frage: {{ messages[0].content }} →")
    config = {"student": {"path": str(student)}, "prompt": {"template": str(template)}}
    export(new_run(tmp_path / "run", config), tmp_path / "out")
    assert (tmp_path / "out/chat_template.jinja").read_text() == template.read_text()
    assert not (tmp_path / "out/chat_template.json").exists()
    del values["chat_template"]
    assert json.loads((tmp_path / "out/tokenizer_config.json").read_text()) == values
    # Without one, the student's own files come along as they are.
    export(new_run(tmp_path / "plain", {"student": {"path": str(student)}}), tmp_path / "kept")
    for name in ("tokenizer_config.json", "chat_template.json", "chat_template.jinja"):
        assert (tmp_path / "kept" / name).read_bytes() == (student / name).read_bytes()


@pytest.mark.parametrize("place", ["weights", "texts", "card", "rename"])
def test_an_export_is_whole_or_not_there(tmp_path, student, monkeypatch, place):
    template = tmp_path / "mine.jinja"
    template.write_text("{{ messages[0].content }}")
    config = {"student": {"path": str(student)}, "prompt": {"template": str(template)}}
    run = new_run(tmp_path / "run", config)

    def killed(*arguments, **options):
        raise KeyboardInterrupt

    def killed_late(self, text, **options):
        if self.name == "README.md":
            raise KeyboardInterrupt
        return write(self, text, **options)

    write = Path.write_text
    broken = {
        "weights": (models.huggingface.export, "save_file", killed),
        "texts": (Path, "write_text", killed_late),
        "card": (export_module, "model_card", killed),
        "rename": (Path, "rename", killed),
    }
    before = sorted(tmp_path.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(*broken[place])
        with pytest.raises(KeyboardInterrupt):
            export(run, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before
    (tmp_path / "out").mkdir()  # an empty one may be given
    export(run, tmp_path / "out")
    assert (tmp_path / "out/chat_template.jinja").read_text() == template.read_text()
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert {"README.md", "model.safetensors", "config.json", "generation_config.json"} <= names


def test_dtypes_may_be_given_as_jax_names_them(tmp_path, student):
    run = new_run(tmp_path / "run", {"student": {"path": str(student)}})
    export(run, tmp_path / "out", dtype=jnp.bfloat16)
    assert models.load_config(tmp_path / "out").dtype == "bfloat16"


@pytest.mark.parametrize(
    ("size", "expected"),
    [("5GB", 5 * 10**9), ("1.5 GiB", 3 * 2**29), ("200mb", 2 * 10**8), ("77", 77)],
)
def test_sizes(size, expected):
    assert bytes_of(size) == expected
    for bad in ("5TBs", "", "-1GB", "0", "GB"):
        with pytest.raises(ValueError, match="no size such as"):
            bytes_of(bad)


def test_casts_only_when_told_to(tmp_path, student):
    run = new_run(tmp_path / "run", {"student": {"path": str(student)}}, dtype="bfloat16")
    export(run, tmp_path / "as-trained")
    assert_same(models.load_pretrained(tmp_path / "as-trained")[1], params(20, "bfloat16"))
    export(run, tmp_path / "wide", dtype="float32")
    wide = models.load_pretrained(tmp_path / "wide")[1]
    assert_same(wide, jax.tree.map(lambda x: x.astype("float32"), params(20, "bfloat16")))


def test_a_student_trained_from_scratch(tmp_path, student):
    run = new_run(tmp_path / "run", {"student": {"init": INIT, "tokenizer": str(student)}})
    export(run, tmp_path / "out")
    config, loaded = models.load_pretrained(tmp_path / "out")
    assert config == CONFIG
    assert_same(loaded, params(20))


def test_the_embedded_tokenizer_goes_with_an_embedded_model():
    config, tokenizer = student_of({"student": {"init": INIT, "tokenizer": "embedded:tokenizer"}})
    assert config == CONFIG
    assert (tokenizer / "tokenizer.json").is_file()


@pytest.mark.parametrize(
    "scaling",
    [
        models.Llama3RopeScaling(8.0, 1.0, 4.0, 64),
        models.LinearRopeScaling(2.0),
        models.YarnRopeScaling(4.0, 64, attention_factor=0.9),
    ],
)
def test_rescaled_positions_of_a_student_from_scratch(student, scaling):
    fields = {**INIT, "family": "llama", "qk_norm": False}
    fields["rope_scaling"] = dataclasses.asdict(scaling)
    config, _ = student_of({"student": {"init": fields, "tokenizer": str(student)}})
    assert config.rope_scaling == scaling


def test_refusals_leave_nothing_behind(tmp_path, student, capsys):
    run = new_run(tmp_path / "run", {"student": {"path": str(student)}})
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "config.json").write_text(json.dumps({"student": {"path": str(student)}}))
    nobody = new_run(tmp_path / "nobody", {"seed": 0})
    other = tmp_path / "other"
    wider = {**INIT, "hidden_size": 32}
    new_run(other, {"student": {"init": wider, "tokenizer": str(student)}})
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    out = tmp_path / "out"
    for flags, message in (
        (["--workdir", run, "--out", full], "is not empty"),
        (["--workdir", tmp_path / "absent", "--out", out], "not a run's directory"),
        (["--workdir", student / "x", "--out", out], "not a run's directory"),
        (["--workdir", empty, "--out", out], "no checkpoint in"),
        (["--workdir", run, "--out", out, "--checkpoint", "15"], "no checkpoint 15 in"),
        (["--workdir", nobody, "--out", out], "names no student"),
        (["--workdir", other, "--out", out], "the config asks for"),
    ):
        assert main([str(flag) for flag in flags]) == 1
        assert message in capsys.readouterr().err
        assert not out.exists()
    assert [p.name for p in full.iterdir()] == ["notes.txt"]
    assert not (tmp_path / "absent").exists()
    for flags, code in (
        (["--checkpoint", "latest"], 2),
        (["--max_shard_size", "5TBs"], 2),
        (["--dtype", "int8"], 2),
        (["stray"], 2),
    ):
        assert main(["--workdir", str(run), "--out", str(out), *flags]) == code
        assert flags[-1] in capsys.readouterr().err and not out.exists()
