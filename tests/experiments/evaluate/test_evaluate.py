"""Evaluation: batching does not matter, summaries follow from records, the command and its errors."""

import dataclasses
import itertools
import json

import jax
import numpy as np
import pytest

from experiments.evaluate import evaluation as module
from experiments.evaluate import model_evaluation
from experiments.evaluate.__main__ import main
from experiments.evaluate.evaluation import evaluate
from experiments.evaluate.part import Part
from experiments.evaluate.settings import EvaluationOptions
from experiments.grading import grade
from experiments.pair.model import Model
from experiments.rollouts.engine import programs
from experiments.tasks.chain import ChainSource
from experiments.tasks.chain_tokenizer import build_chain_tokenizer, save_chain_tokenizer
from experiments.tasks.example import Example
from models import Generation, ModelConfig, init, save_pretrained
from models.embedded import model_directory
from models.text.tokenizer import encode

TOKENIZER = build_chain_tokenizer()
CONFIG = ModelConfig(
    family="qwen3",
    vocab_size=128,
    hidden_size=16,
    intermediate_size=32,
    num_layers=1,
    num_heads=2,
    num_kv_heads=1,
    head_dim=8,
    qk_norm=True,
    tie_embeddings=True,
    max_positions=256,
)
EXAMPLES = list(ChainSource("test", size=7))


@pytest.fixture(scope="module")
def params():
    return init(jax.random.key(0), CONFIG)


def sampled(params, prompt_width=None, on_batch=None, part=None, **options):
    settings = EvaluationOptions(
        **({"n": 3, "max_new_tokens": 12, "temperature": 1.0, "top_p": 1.0} | options)
    )
    return evaluate(Model(params, CONFIG), TOKENIZER, EXAMPLES, settings, prompt_width=prompt_width,
        on_batch=on_batch, part=part,
    )  # fmt: skip


def texts(records):
    return [(r["id"], r["sample"], r["text"]) for r in records]


@pytest.mark.slow
def test_batches_do_not_matter(params):
    _, whole = sampled(params, batch_size=64)
    for options in ({"batch_size": 4}, {"batch_size": 1}, {"batch_size": 21, "prompt_width": 40}):
        assert texts(sampled(params, **options)[1]) == texts(whole)
    assert len({r["text"] for r in whole}) == 21
    assert texts(sampled(params, seed=1)[1]) != texts(whole)
    # The problem's place and the sample's number are its identity.
    settings = EvaluationOptions(n=3, max_new_tokens=12, temperature=1.0, top_p=1.0)
    _, fewer = evaluate(Model(params, CONFIG), TOKENIZER, EXAMPLES[:2], settings)
    assert texts(fewer) == texts(whole)[:6]


@pytest.mark.slow
def test_the_same_programs_serve_again(params):
    sampled(params, batch_size=5, max_new_tokens=9)
    compiled = programs()
    sampled(params, batch_size=5, max_new_tokens=9, seed=7)
    assert programs() == compiled
    sampled(params, batch_size=5, max_new_tokens=10)
    assert programs() > compiled


def test_padded_ids_are_never_drawn(params):
    _, records = sampled(params, n=8, max_new_tokens=40, temperature=5.0)
    # 30 of the 128 ids are padding, and decode to nothing; two more are special tokens.
    assert sum(r["length"] for r in records) == pytest.approx(
        sum(len(encode(TOKENIZER, r["text"])) for r in records), rel=0.1
    )


def test_greedy_samples_agree(params):
    _, records = sampled(params, temperature=0.0)
    for _, group in itertools.groupby(records, key=lambda r: r["id"]):
        assert len({r["text"] for r in group}) == 1


def scripted(responses, eos=97):
    """Stands in for the engine: writes `responses[sample_id]`, with EOS where there is room."""
    calls = []

    class Scripted:
        def __init__(self, slots, count, width, multiple):
            self.most, self.count = slots.max_tokens, count

        def run(self, params, requests):
            requests = list(requests)
            for start in range(0, len(requests), self.count):
                done = requests[start : start + self.count][::-1]  # in no special order
                calls.append([r.sample_id for r in done])
                tokens = np.zeros((len(done), self.most), np.int32)
                counts = np.zeros(len(done), np.int32)
                for b, request in enumerate(done):
                    ids = [*encode(TOKENIZER, responses[request.sample_id]), eos][: self.most]
                    tokens[b, : len(ids)], counts[b] = ids, len(ids)
                zeros = np.zeros(tokens.shape, np.float32)
                yield Generation(tokens, counts, zeros, zeros), done

    return Scripted, calls


def test_summary_follows_from_the_samples(monkeypatch):
    answers = [int(e.answer) for e in EXAMPLES]
    # Problem i has i right samples of 4, the wrong ones agree with each other for odd i only.
    responses = [
        f"\\boxed{{{answers[i] if s < i else (answers[i] + 1 + (0 if i % 2 else s)) % 10}}}"
        for i in range(5)
        for s in range(4)
    ]
    responses[3] = "b=1.\n\n" * 6
    fake, calls = scripted(responses)
    monkeypatch.setattr(module, "Engine", fake)
    settings = EvaluationOptions(n=4, max_new_tokens=30, batch_size=6)
    summary, records = evaluate(Model(None, CONFIG), TOKENIZER, EXAMPLES[:5], settings)
    assert [i for done in calls for i in done[::-1]] == list(range(20))
    assert calls[0] == [5, 4, 3, 2, 1, 0]
    assert [r["text"] for r in records] == [x[:30] for x in responses]
    assert [r["right"] for r in records] == [s < i for i in range(5) for s in range(4)]
    assert all(r["right"] == grade(r["text"], r["answer"]) for r in records)
    assert summary["accuracy"] == pytest.approx((0 + 1 + 2 + 3 + 4) / 20)
    assert summary["interval"][0] < summary["accuracy"] < summary["interval"][1]
    assert (summary["n"], summary["samples"]) == (5, 4)
    assert summary["truncation_rate"] == 1 / 20
    lengths = [10] * 20
    lengths[3] = 30
    assert [r["length"] for r in records] == lengths
    assert (summary["tokens"], summary["mean_length"]) == (sum(lengths), sum(lengths) / 20)
    assert summary["pass_at_k"].keys() == {"1", "2", "4"}
    assert summary["pass_at_k"]["1"] == pytest.approx(0.5)
    assert summary["pass_at_k"]["2"] == pytest.approx((0 + 0.5 + 5 / 6 + 1 + 1) / 5)
    assert summary["pass_at_k"]["4"] == pytest.approx(4 / 5)
    # One right of four loses to three equal wrong ones; two, three and four win.
    assert summary["majority"] == pytest.approx(3 / 5)


def test_what_is_done_is_not_written_again(params, tmp_path):
    _, whole = sampled(params)
    part = Part(tmp_path / "part", {})
    part.known = {i: {**whole[i], "kept": True} for i in (0, 4, 20)}
    summary, records = sampled(params, part=part)
    assert texts(records) == texts(whole)
    assert [i for i, r in enumerate(records) if r.get("kept")] == [0, 4, 20]
    # What was added is whole: nothing is left to be written.
    part.known |= Part(tmp_path / "part", {}).known
    assert sorted(part.known) == list(range(21))
    again, _ = sampled(params, part=part)
    assert again["accuracy"] == summary["accuracy"]


def test_scores_by_group_and_by_data_set(monkeypatch):
    examples = [
        dataclasses.replace(EXAMPLES[i], answer="1", source=source, group=group)
        for i, (source, group) in enumerate(
            [("a", "2"), ("a", "1"), ("b", "1"), ("b", "2"), ("b", "")]
        )
    ]
    right = [[1, 1], [1, 0], [0, 0], [0, 0], [1, 1]]
    responses = [f"\\boxed{{{2 - v}}}" for verdicts in right for v in verdicts]
    fake, _ = scripted(responses)
    monkeypatch.setattr(module, "Engine", fake)
    settings = EvaluationOptions(n=2, max_new_tokens=30, batch_size=3)
    summary, records = evaluate(Model(None, CONFIG), TOKENIZER, examples, settings)
    assert [r["group"] for r in records[::2]] == ["2", "1", "1", "2", ""]
    assert summary["accuracy"] == 0.5
    assert {k: v["accuracy"] for k, v in summary["sources"].items()} == {
        "a": 0.75, "b": pytest.approx(1 / 3)
    }  # fmt: skip
    assert {k: (v["accuracy"], v["n"]) for k, v in summary["groups"].items()} == {
        "1": (0.25, 2), "2": (0.5, 2)
    }  # fmt: skip
    assert summary["groups"]["1"]["pass_at_k"] == {"1": 0.25, "2": 0.5}
    # Each data set counts alike, whatever its size.
    assert summary["mean_of_sources"]["accuracy"] == pytest.approx((0.75 + 1 / 3) / 2)
    low, high = summary["mean_of_sources"]["interval"]
    assert low < summary["mean_of_sources"]["accuracy"] < high
    alone, _ = evaluate(Model(None, CONFIG), TOKENIZER, examples[:1], settings)
    assert not {"sources", "groups", "mean_of_sources"} & alone.keys()


def test_thinking_that_the_prompt_began_is_not_an_answer(monkeypatch):
    tokenizer = build_chain_tokenizer()
    tokenizer.chat_template = "{{ messages[0].content }}<think>\n"
    examples = [dataclasses.replace(e, answer="1") for e in EXAMPLES[:3]]
    settings = EvaluationOptions(n=1, max_new_tokens=60)
    responses = ["\\boxed{1}", "\\boxed{2}</think>\\boxed{1}", "so</think>\\boxed{2}"]
    for wrapped, expected in ((tokenizer, [False, True, False]), (TOKENIZER, [True, True, False])):
        fake, _ = scripted(responses)
        monkeypatch.setattr(module, "Engine", fake)
        _, records = evaluate(Model(None, CONFIG), wrapped, examples, settings)
        assert [r["right"] for r in records] == expected
        assert [r["text"] for r in records] == responses


def test_multiple_choice_is_graded_by_letter(monkeypatch):
    example = dataclasses.replace(EXAMPLES[0], answer="B", choices=("red", "blue"))
    responses = ["\\boxed{B}", "\\boxed{blue}", "The answer is (B).", "\\boxed{A}", "\\boxed{A, B}"]
    fake, _ = scripted(responses)
    monkeypatch.setattr(module, "Engine", fake)
    _, records = evaluate(
        Model(None, CONFIG), TOKENIZER, [example], EvaluationOptions(n=5, max_new_tokens=60)
    )
    assert [r["right"] for r in records] == [True, True, True, False, False]


def test_progress_is_told_as_samples_end(params):
    told = []
    sampled(params, batch_size=4, on_batch=lambda done, total: told.append((done, total)))
    assert told == sorted(set(told))
    assert told[-1] == (21, 21)
    assert len(told) > 2


def test_bad_requests_are_named(params):
    with pytest.raises(ValueError, match="no problems"):
        evaluate(Model(params, CONFIG), TOKENIZER, [], EvaluationOptions(n=1, max_new_tokens=4))
    with pytest.raises(ValueError, match="n=0"):
        sampled(params, n=0)
    with pytest.raises(ValueError, match=r"256 positions.*max_new_tokens"):
        sampled(params, max_new_tokens=250)
    with pytest.raises(ValueError, match=r"example chain/test/0/0 has"):
        sampled(params, prompt_width=5)
    foreign = Example("a.jsonl:1", "é?", "", "1", "a")
    with pytest.raises(ValueError, match="cannot write"):
        evaluate(Model(params, CONFIG), TOKENIZER, [foreign], EvaluationOptions(max_new_tokens=4))


@pytest.fixture(scope="module")
def model_dir(params, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = tmp_path_factory.mktemp("tokenizer")
    save_chain_tokenizer(tokenizer)
    save_pretrained(params, CONFIG, path, tokenizer_from=tokenizer)
    return path


def test_command_writes_results_and_samples(model_dir, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["--model", str(model_dir), "--data", "chain/test", "--size", "5", "--n", "2"]
    assert main([*command, "--max_new_tokens", "8", "--batch_size", "4", "--out", str(out)]) == 0
    results = json.loads((out / "results.json").read_text())
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == 10
    assert (results["n"], results["samples"]) == (5, 2)
    assert results["accuracy"] == np.mean([s["right"] for s in samples])
    assert results["settings"]["data"] == "chain/test"
    assert {"commit", "versions"} <= results.keys()
    assert {"text", "right", "length", "truncated", "id"} <= samples[0].keys()
    assert {p.name for p in out.iterdir()} == {"results.json", "samples.jsonl", "evaluation.png"}
    printed = capsys.readouterr().out
    assert "Average@2" in printed
    assert "pass@2" in printed
    assert "95 % interval" in printed


def test_an_interrupted_command_is_completed(model_dir, tmp_path, capsys, monkeypatch):
    command = ["--model", str(model_dir), "--data", "chain/test", "--size", "4", "--n", "2"]
    command += ["--max_new_tokens", "8", "--temperature", "1"]
    two = ["--batch_size", "2"]
    assert main([*command, *two, "--out", str(tmp_path / "whole")]) == 0
    whole = (tmp_path / "whole/samples.jsonl").read_bytes()

    out, batches = tmp_path / "out", []
    plain = module.Engine.run

    def interrupted(self, params, requests):
        for item in plain(self, params, requests):
            if len(batches) == 2:
                raise KeyboardInterrupt
            batches.append(item)
            yield item

    monkeypatch.setattr(module.Engine, "run", interrupted)
    assert main([*command, *two, "--out", str(out)]) == 130
    monkeypatch.undo()
    assert not (out / "results.json").exists()
    with (out / "samples.jsonl.part").open("ab") as file:
        file.write(b"[7, {torn")
    asked = []

    def watched(self, params, requests):
        asked.extend(requests)
        return plain(self, params, iter(asked))

    monkeypatch.setattr(module.Engine, "run", watched)
    assert main([*command, *two, "--out", str(out)]) == 0
    assert 0 < len(asked) < 8
    assert (out / "samples.jsonl").read_bytes() == whole
    assert {p.name for p in out.iterdir()} == {"results.json", "samples.jsonl", "evaluation.png"}


@pytest.mark.parametrize(
    ("flags", "same"),
    [
        ([], True),
        (["--batch_size", "3"], True),
        (["--seed", "1"], False),
        (["--size", "3"], False),
        (["--prompt_format", "{problem} "], False),
        (["--chat_template", "TEMPLATE"], False),
    ],
)
def test_what_samples_depend_on(model_dir, tmp_path, monkeypatch, flags, same):
    (tmp_path / "mine.jinja").write_text("{{ messages[0].content }}")
    flags = [str(tmp_path / "mine.jinja") if flag == "TEMPLATE" else flag for flag in flags]
    made = []

    class Kept(Exception):
        pass

    def part(path, made_of):
        made.append(made_of)
        raise Kept

    monkeypatch.setattr(model_evaluation, "Part", part)
    command = ["--model", str(model_dir), "--data", "chain/test", "--size", "4"]
    for more in ([], flags):
        with pytest.raises(Kept):
            main([*command, *more, "--out", str(tmp_path / "out")])
    assert (made[0] == made[1]) is same


def test_command_takes_several_data_sets(model_dir, tmp_path, capsys):
    for name in ("one", "two"):
        (tmp_path / f"{name}.jsonl").write_text(
            json.dumps({"q": "a=3,b=+4?", "answer": "7", "hard": name[0]}) + "\n"
        )
    copy = tmp_path / "copy.jsonl"
    copy.write_text(json.dumps({"question": "a=3,b=+4?", "answer": "so\n#### 7"}) + "\n")
    command = ["--model", str(model_dir), "--n", "1", "--max_new_tokens", "4"]
    files = [str(tmp_path / f"{name}.jsonl") for name in ("one", "two")]
    fields = ["--fields", "problem=q", "group=hard"]
    assert main([*command, "--data", *files, *fields, "--out", str(tmp_path / "out")]) == 0
    assert "mean of the sets" in capsys.readouterr().out
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert list(results["sources"]) == ["one", "two"] and list(results["groups"]) == ["o", "t"]
    assert main([*command, "--data", f"gsm8k/test={copy}"]) == 0


def test_command_reads_jsonl_from_a_path_with_brackets(model_dir, tmp_path, capsys):
    data = tmp_path / "[bold]" / "mine[/red].jsonl"
    data.parent.mkdir(parents=True)
    data.write_text(json.dumps({"question": "a=3,b=+4?", "answer": "so\n#### 7"}) + "\n")
    command = ["--model", str(model_dir), "--data", str(data), "--n", "1"]
    out = tmp_path / "out[/]"
    command += ["--max_new_tokens", "4", "--temperature", "0", "--out", str(out)]
    assert main(command) == 0
    printed = "".join(capsys.readouterr().out.split())
    assert f"on{data}" in printed and f"to{out}" in printed


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--model", "absent/model"], 1, "there is no directory absent/model"),
        (["--model", "embedded:pupil"], 1, "embedded:teacher, embedded:student"),
        (["--data", "chain/dev"], 1, "chain/test"),
        (["--data", "absent.jsonl"], 1, "absent.jsonl"),
        (["--prompt_format", "solve"], 1, "prompt_format"),
        (["--n", "0"], 2, "--n=0 must be at least 1"),
        (["--top_p", "0"], 2, "--top_p=0.0 must lie in (0, 1]"),
        (["--temperature", "nan"], 2, "'nan' is not a number"),
        (["--size", "-1"], 2, "--size=-1 must be 0 (all) or more"),
        (["--answer", "boxd"], 2, "did you mean boxed?"),
        (["--thinking", "no"], 2, "choose among default, on, off"),
        (["--dtype", "int8"], 2, "choose among float32, bfloat16, float16"),
    ],
)
def test_command_says_what_is_wrong(model_dir, capsys, flags, code, message):
    command = ["--model", str(model_dir), "--data", "chain/test", "--size", "2"]
    assert main([*command, "--max_new_tokens", "4", *flags]) == code
    assert message in capsys.readouterr().err


def test_model_directories(model_dir, tmp_path):
    assert model_directory(str(model_dir)) == model_dir
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        model_directory(str(tmp_path))
    with pytest.raises(ValueError, match="embedded:pupil"):
        model_directory("embedded:pupil")
