"""`experiments.bench` as a command, and the protocol of its processes with peers made up here."""

from __future__ import annotations

import json
import sys
import time

import pytest

from experiments.bench import __main__ as bench
from experiments.bench import processes
from experiments.bench.processes import Result, Worker, own_command, peer_command, take_turns
from experiments.bench.workloads import PEERS, request

PEER = """
import sys
sys.path.insert(0, {directory!r})
import bench_protocol

def measure(session):
    {body}

bench_protocol.serve(measure)
"""


def worker(tmp_path, body: str, name: str = "peer") -> Worker:
    script = tmp_path / f"{name}.py"
    directory = str(processes.SCRIPTS["hf"].parent)
    script.write_text(PEER.format(directory=directory, body=body))
    message = {"what": "generate", "variant": "", "seed": 0, "vocab_size": 50}
    return Worker(
        [sys.executable, str(script)], message, Result("generate", name), tmp_path / f"{name}.log"
    )


def test_peer_answers_times_memory_facts_and_versions(tmp_path):
    body = (
        "print('a library talks'); session.packages = ('numpy', 'no-such-package'); "
        "session.measure(lambda: None); session.facts['tokens'] = session.tokens(2, 3)"
    )
    one, two = worker(tmp_path, body, "one"), worker(tmp_path, body, "two")
    take_turns([one, two], 3)
    for result in (one.result, two.result):
        assert result.state == "done" and len(result.seconds) == 3
        assert 0 <= result.first_seconds < 5 and 5 < result.peak_mib < 1000
        assert (
            result.versions["no-such-package"] == "absent" and result.versions["numpy"][0].isdigit()
        )
    # The same tokens everywhere, in range, without the padding's id.
    assert one.result.facts == two.result.facts
    rows = one.result.facts["tokens"]
    assert [len(row) for row in rows] == [3, 3] and all(1 <= t < 50 for row in rows for t in row)
    assert "a library talks" in one.log.read_text()


def test_repetitions_alternate_between_processes(tmp_path):
    stamps = tmp_path / "stamps"
    body = f"session.measure(lambda: open({str(stamps)!r}, 'a').write('{{}}'))"
    one, two = (worker(tmp_path, body.format(name), name) for name in ("a", "b"))
    take_turns([one, two], 3)
    # Each is warmed up twice; then rounds, every second one in the opposite order.
    assert stamps.read_text() == "aabb" + "ab" + "ba" + "ab"


@pytest.mark.parametrize(
    ("body", "state", "message"),
    [
        ("import no_such_module", "absent", "no_such_module"),
        ("raise ValueError('too large')", "failed", "ValueError: too large"),
        ("import os; os._exit(3)", "failed", "it ended with code 3"),
        ("import os; session._out.write('hello\\n'); session._out.flush()", "failed", "'hello'"),
    ],
)
def test_a_peer_that_cannot_says_why(tmp_path, body, state, message):
    bad, good = worker(tmp_path, body), worker(tmp_path, "session.measure(lambda: None)", "good")
    take_turns([bad, good], 2)
    assert bad.result.state == state and message in bad.result.message
    assert good.result.state == "done" and len(good.result.seconds) == 2


def test_a_peer_that_dies_later_keeps_others_going(tmp_path):
    body = "session.measure(iter([lambda: 0] * 3).__next__)"
    bad, good = worker(tmp_path, body), worker(tmp_path, "session.measure(lambda: None)", "good")
    take_turns([bad, good], 3)
    assert bad.result.state == "failed" and "StopIteration" in bad.result.message
    assert good.result.state == "done" and len(good.result.seconds) == 3


def test_no_interpreter_is_an_absent_peer(tmp_path):
    missing = Worker(
        peer_command("hf", {"hf": str(tmp_path / "python")}),
        {},
        Result("generate", "hf"),
        tmp_path / "log",
    )
    take_turns([missing], 1)
    assert missing.result.state == "absent" and "cannot be started" in missing.result.message


def test_what_takes_long_is_measured_once(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "MINUTE", 0.05)
    slow = worker(tmp_path, "import time; session.measure(lambda: time.sleep(0.06))", "slow")
    quick = worker(tmp_path, "session.measure(lambda: None)", "quick")
    started = time.perf_counter()
    take_turns([slow, quick], 4)
    assert len(slow.result.seconds) == 1 and len(quick.result.seconds) == 4
    assert time.perf_counter() - started < 30


def test_request_is_json_and_carries_the_shapes(tmp_path):
    message = request("train", "eager", "tiny", tmp_path, tmp_path, 4096)
    assert json.loads(json.dumps(message)) == message
    assert message["train"] == {"batch": 8, "prompt": 64, "new": 192}
    assert message["optimizer"]["b2"] == 0.95


@pytest.mark.slow
def test_command_end_to_end(tmp_path, capsys):
    out = tmp_path / "out"
    flags = ["--what", "generate,loss", "--peers", "naive,hf", "--model", "micro"]
    flags += ["--repetitions", "1", "--peer-python", str(tmp_path / "nowhere"), "--out", str(out)]
    assert bench.main(flags) == 0
    results = json.loads((out / "results.json").read_text())
    assert results["model"] == "micro" and results["cores"] >= 1 and results["cpu"]
    assert results["versions"]["jax"][0].isdigit()
    states = {(r["what"], r["who"], r["variant"]): r["state"] for r in results["results"]}
    assert states == {
        ("generate", "ours", ""): "done",
        ("generate", "hf", "dynamic"): "absent",
        ("generate", "hf", "static"): "absent",
        ("loss", "ours", ""): "done",
        ("loss", "naive", "dense"): "done",
    }
    done = {(r["what"], r["who"]): r for r in results["results"] if r["state"] == "done"}
    assert all(len(r["seconds"]) == 1 and r["peak_mib"] > 50 for r in done.values())
    ours, dense = (done["loss", who]["facts"] for who in ("ours", "naive"))
    assert ours["value"] == pytest.approx(dense["value"], rel=1e-5)
    assert done["generate", "ours"]["facts"]["tokens"] == 16
    table = (out / "table.md").read_text()
    assert table in capsys.readouterr().out
    assert "generate, hf (static): absent" in table and "| loss | time, dense = 1 |" in table


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--what", "generate,speed"], "--what=generate,speed: 'speed' is not known"),
        (["--peers", "vllm"], "--peers=vllm: 'vllm' is not known; choose among all, none, hf"),
        (["--model", "/no/such/model"], "neither one of micro"),
        (["--repetitions", "0"], "must be at least 1"),
        (["--peer-python", "naive=python"], "choose among hf, torch, trl, tunix"),
    ],
)
def test_wrong_flags_are_named(flags, message, capsys):
    assert bench.main(flags) == 2
    assert message in capsys.readouterr().err


def test_interpreters_by_peer():
    pythons = bench._pythons(["tunix=/t/python", "/p/python"])
    assert pythons == {
        "hf": "/p/python",
        "torch": "/p/python",
        "trl": "/p/python",
        "tunix": "/t/python",
    }
    assert peer_command("tunix", pythons)[0] == "/t/python"
    assert peer_command("hf", {})[0] == sys.executable == own_command()[0]
    assert set(processes.SCRIPTS) == set(PEERS) - {"naive"}
    assert all(script.is_file() for script in processes.SCRIPTS.values())
