"""Trajectories through slots: the same whatever the slots, in files and online, torn or whole."""

from __future__ import annotations

import importlib
import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments.config.read import read_config
from experiments.data.batches import prompt_batches
from experiments.data.sources import load_source
from experiments.methods import make_recipe
from experiments.pair.pair import load_pair, start_student
from experiments.rollouts.synthesis import read_line, synthesise
from experiments.rollouts.trajectory_batches import TrajectoryBatches

TRAINED = ("sample_id", "token_ids", "source", "likelihood_weights", "divergence_weights")


def small(arm: str, arg: str = "", **synthesis) -> ConfigDict:
    config = importlib.import_module(f"configs.{arm}").get_config(arg)
    config.batch_size = 6
    config.data.train.size = 12
    section = config.motab if arm == "motab" else config.rollout
    section.max_total = 48
    if arm == "motab":
        section.update({"max_correction": 24, "min_correction": 4, "chunk": 8})
    if config.synthesis.mode == "offline":
        config.synthesis.trajectories = 12
    with config.unlocked():
        config.synthesis.update(synthesis)
    return config


@pytest.fixture(scope="module")
def pair():
    return load_pair(read_config(small("motab")))


def write(config, pair, path):
    synthesise(read_config(config), pair, make_recipe(read_config(config), pair), path)
    return path.read_bytes().splitlines(keepends=True)


def trained(lines):
    """What trains, by sample."""
    records = sorted(map(json.loads, lines[1:]), key=lambda r: r["sample_id"])
    return [[r[name] for name in TRAINED] for r in records]


@pytest.fixture(scope="module")
def whole(pair, tmp_path_factory):
    return write(small("motab"), pair, tmp_path_factory.mktemp("whole") / "file.jsonl")


@pytest.mark.slow
@pytest.mark.parametrize("slots", [1, 4])
def test_a_file_holds_the_same_whatever_the_slots(whole, pair, slots, tmp_path):
    lines = write(small("motab", slots=slots), pair, tmp_path / "file.jsonl")
    assert lines[0] == whole[0]  # so that one may go on with what another began
    assert trained(lines) == trained(whole)
    ids = [json.loads(line)["sample_id"] for line in lines[1:]]
    assert (ids == sorted(ids)) == (slots == 1)


@pytest.mark.slow
def test_a_file_holds_what_whole_batches_hold(whole, pair):
    config = small("motab")
    recipe, copies = (
        make_recipe(read_config(config), pair),
        config.synthesis.trajectories_per_prompt,
    )
    batches = prompt_batches(
        load_source(config.data.train), pair.render, batch_size=3, max_prompt_tokens=48, seed=0
    )
    params, rows = start_student(pair, config.seed), []
    for round_ in range(2):
        batch = next(batches)
        trajectories, record, _ = jax.device_get(recipe(params, batch, copies, round_))
        examples = [example for example in batch.examples for _ in range(copies)]
        ids = [int(i) * copies + copy for i in batch.sample_ids_B for copy in range(copies)]
        lines = recipe.lines(trajectories, record, examples)
        rows += [[i, *[line[n] for n in TRAINED[1:]]] for i, line in zip(ids, lines, strict=True)]
    assert rows == trained(whole)


def test_only_rows_in_flight_are_lost(whole, pair, tmp_path):
    """A file cut anywhere, its lines in any order, is completed: each sample once."""
    order = np.random.default_rng(0).permutation(len(whole) - 1)[:5]
    kept = [whole[0], *[whole[1 + i] for i in order]]
    path = tmp_path / "file.jsonl"
    path.write_bytes(b"".join(kept) + whole[-1][:40])
    lines = write(small("motab", slots=4), pair, path)
    assert lines[: len(kept)] == kept
    assert trained(lines) == trained(whole)
    finished = path.read_bytes()
    assert write(small("motab"), pair, path) == finished.splitlines(keepends=True)


@pytest.mark.slow
def test_a_line_that_was_changed_is_written_anew(whole, pair, tmp_path, caplog):
    """Even where it is still JSON; and training on such a file is refused."""
    random, config = np.random.default_rng(1), small("motab")
    path = tmp_path / "file.jsonl"
    for number in (2, 5):
        line = bytearray(whole[number])
        place = line.index(b"token_ids") + 14
        line[place] ^= 1  # a digit for another
        json.loads(line)
        path.write_bytes(b"".join([*whole[:number], line, *whole[number + 1 :]]))
        message = rf"file\.jsonl, line {number + 1}: it is torn or was changed\. Remove the line"
        with pytest.raises(ValueError, match=message):
            TrajectoryBatches(read_config(config), make_recipe(read_config(config), pair), path)
        lines = write(config, pair, path)
        assert lines[:-1] == [*whole[:number], *whole[number + 1 :]]
        assert trained(lines) == trained(whole)
        assert f"line {number + 1}: it is torn or was changed; writing it anew" in caplog.text
    for line in whole[1:]:
        place, bit = random.integers(0, len(line)), random.integers(0, 8)
        changed = bytearray(line)
        changed[place] ^= 1 << bit
        try:
            record = read_line(bytes(changed))
        except ValueError:
            continue
        assert record == json.loads(line)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: [*lines, lines[3]], "more than once"),
        (
            lambda lines: [*lines[:3], lines[3].rpartition(b', "crc"')[0] + b"}\n"],
            r"line 4: .*no crc",
        ),
        (lambda lines: [*lines[:3], b"\xff\xfe\x00\n"], "line 4: "),
        (lambda lines: [*lines[:3], b"[" * 100_000 + b"\n"], "line 4: "),
        (lambda lines: [*lines[:3], b"\n"], "line 4: "),
        (lambda lines: [b"[1]\n", *lines[1:]], "line 1: not a file of synthesised"),
        (lambda lines: [b"null\n", *lines[1:]], "line 1: not a file of synthesised"),
        (lambda lines: [], "line 1: not a file of synthesised"),
        (lambda lines: lines[:1], "no trajectory that trains"),
    ],
)
def test_files_that_were_put_together_otherwise_are_refused(whole, pair, tmp_path, change, message):
    config, path = small("motab"), tmp_path / "file.jsonl"
    path.write_bytes(b"".join(change(list(whole))))
    with pytest.raises(ValueError, match=message):
        TrajectoryBatches(read_config(config), make_recipe(read_config(config), pair), path)


def test_token_ids_of_another_tokenizer_are_refused(whole, pair, tmp_path):
    config, path = small("motab"), tmp_path / "file.jsonl"
    header = json.loads(whole[0])
    header["student"]["tokenizer"] = "0" * 24
    path.write_bytes(b"".join([json.dumps(header).encode() + b"\n", *whole[1:]]))
    with pytest.raises(ValueError, match=r"file\.jsonl was written with another tokenizer"):
        TrajectoryBatches(read_config(config), make_recipe(read_config(config), pair), path)


def test_a_file_that_changes_while_it_is_in_use_is_noticed(whole, pair, tmp_path):
    config, path = small("motab"), tmp_path / "file.jsonl"
    path.write_bytes(b"".join(whole))
    batches = TrajectoryBatches(read_config(config), make_recipe(read_config(config), pair), path)
    path.write_bytes(b"".join([whole[0], *whole[:0:-1]]))
    with pytest.raises(ValueError, match=r"file\.jsonl was changed while it was in use"):
        list(map(next, [batches] * 8))


def test_training_does_not_depend_on_the_order_of_lines(whole, pair, tmp_path):
    config, streams = small("motab"), []
    for name, lines in (("a", whole), ("b", [whole[0], *whole[:0:-1]])):
        (tmp_path / name).write_bytes(b"".join(lines))
        batches = TrajectoryBatches(
            read_config(config), make_recipe(read_config(config), pair), tmp_path / name
        )
        streams.append([next(batches)["trajectories"] for _ in range(3)])
    jax.tree.map(np.testing.assert_array_equal, *streams)


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["opd", "skd", "gkd"])
def test_online_slots_change_nothing(arm, pair):
    written = []
    for slots in (0, 2):
        config = small(arm, mode="online", slots=slots)
        batches = prompt_batches(
            load_source(config.data.train), pair.render, batch_size=3, max_prompt_tokens=48, seed=0
        )
        copies = config.batch_size // 3
        written.append(
            jax.device_get(
                make_recipe(read_config(config), pair)(
                    start_student(pair, config.seed), next(batches), copies, 4
                )
            )
        )
    whole, through = written
    jax.tree.map(np.testing.assert_array_equal, through[:2], whole[:2])
    assert through[2].keys() == whole[2].keys()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), through[2], whole[2])


@pytest.mark.slow
def test_copies_need_not_divide_a_batch_offline(pair, tmp_path):
    """Batches of 6 from 4 texts of each of 3 prompts; online a batch is rolled out at once."""
    lines = write(small("motab", trajectories_per_prompt=4), pair, tmp_path / "file.jsonl")
    records = [json.loads(line) for line in lines[1:]]
    assert sorted(r["sample_id"] for r in records) == list(range(12))
    by_prompt = {}
    for r in records:
        by_prompt.setdefault(r["readable"]["id"], []).append(r["sample_id"] // 4)
    assert sorted(map(len, by_prompt.values())) == [4, 4, 4]
    assert all(len(set(ids)) == 1 for ids in by_prompt.values())
    with pytest.raises(ValueError, match="batch_size=6 is not a multiple"):
        make_recipe(read_config(small("motab", "online", trajectories_per_prompt=4)), pair)


def test_slots_that_cannot_be_are_refused(pair):
    with pytest.raises(ValueError, match=r"synthesis\.slots=-1"):
        make_recipe(read_config(small("opd", slots=-1)), pair)
