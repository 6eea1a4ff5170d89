"""Grading processes: interrupted, killed, forked, starved, and on platforms that lack what they use."""

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from experiments.grading import POOL, GradingError, grade, judge, verdicts

ROOT = Path(__file__).resolve().parents[3]
# None is decided by plain comparison.
KNOWN = [
    ("\\boxed{(x+1)^2}", "x^2+2x+1", True),
    ("\\boxed{\\sqrt{8}}", "3\\sqrt{2}", False),
    ("\\boxed{x > 2}", "(2, \\infty)", True),
    ("\\boxed{x+1}", "x+2", False),
]


def all_known():
    verdicts._compare.cache_clear()
    return all(grade(response, answer) is right for response, answer, right in KNOWN)


class Alarm(Exception):
    pass


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers")
@pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="needs the main thread"
)
def test_an_interrupt_at_any_moment_shifts_no_verdict():
    def interrupt(*_):
        raise Alarm

    before = signal.signal(signal.SIGALRM, interrupt)
    draw, interrupted = random.Random(0), 0
    try:
        assert all_known()
        for i in range(14):
            signal.setitimer(signal.ITIMER_REAL, 1e-4 + draw.random() * draw.choice((0.003, 0.03)))
            try:
                all_known()
            except Alarm:
                interrupted += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            if i % 5 == 0:
                assert all_known()
        assert interrupted > 3
        assert all_known()
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers")
def test_a_handler_may_grade_while_it_interrupts_grading():
    inner = []
    before = signal.signal(signal.SIGALRM, lambda *_: inner.append(grade(*KNOWN[0][:2])))
    try:
        assert all_known()
        verdicts._compare.cache_clear()
        signal.setitimer(signal.ITIMER_REAL, 0.002)
        assert grade("\\boxed{(x+1)^5-(x-1)^5}", "(1+x)^5+(1-x)^5") is True
        signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert inner in ([], [True])
    assert all_known()


def test_a_killed_worker_is_replaced():
    assert all_known()
    worker = POOL._slot().worker
    worker._process.kill()
    assert all_known()
    assert POOL._slot().worker is not worker


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs job control")
def test_a_worker_that_stands_still_times_out(monkeypatch):
    assert all_known()
    os.kill(POOL._slot().worker._process.pid, signal.SIGSTOP)
    monkeypatch.setattr(verdicts, "TIME_LIMIT_SECONDS", 0.2)
    verdicts._compare.cache_clear()
    assert judge(*KNOWN[0][:2]).timed_out
    monkeypatch.undo()
    assert all_known()


def test_an_answer_that_takes_too_long_is_counted_apart(monkeypatch):
    monkeypatch.setattr(verdicts, "TIME_LIMIT_SECONDS", 0.5)
    verdicts._compare.cache_clear()
    slow = judge("\\boxed{((20!)!)!}", "5")
    assert not slow.right
    assert slow.timed_out
    assert slow.final == "((20!)!)!"
    assert not judge("\\boxed{6}", "5").timed_out
    monkeypatch.undo()
    assert all_known()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_workers_of_its_own():
    assert all_known()
    program = (
        "import os; from experiments.grading import grade, POOL\n"
        "def ok(): return grade(r'\\boxed{(x+1)^2}', 'x^2+2x+1') and not grade(r'\\boxed{x}', 'y+1')\n"
        "assert ok()\n"
        "child = os.fork()\n"
        "from experiments.grading import verdicts; verdicts._compare.cache_clear()\n"
        "good = ok()\n"
        "if not child: POOL.close(); os._exit(not good)\n"
        "assert os.waitpid(child, 0)[1] == 0 and good and ok()\n"
    )
    assert _python(program).returncode == 0


def _python(program: str, *path: Path) -> subprocess.CompletedProcess:
    places = os.pathsep.join(map(str, (*path, ROOT)))
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": places},
        cwd=path[0] if path else ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


GRADES = "from experiments.grading import grade\nprint(grade(r'\\boxed{x+x}', '2x'))"


@pytest.mark.parametrize(
    "resource",
    [
        "raise ImportError('not on this platform')",
        *(
            pytest.param(source, marks=pytest.mark.slow)
            for source in (
                "RLIMIT_AS, RLIMIT_CORE = 5, 4\n"
                "def setrlimit(*_): raise ValueError('above the maximum')",
                "RLIMIT_AS, RLIMIT_CORE = 5, 4\ndef setrlimit(*_): raise OSError('refused')",
                "",
            )
        ),
    ],
    ids=["absent", "refused", "forbidden", "empty"],
)
def test_platforms_without_limits_grade(resource, tmp_path):
    (tmp_path / "resource.py").write_text(resource)
    done = _python(GRADES, tmp_path)
    assert done.stdout.strip() == "True", done.stderr


@pytest.mark.parametrize(
    ("package", "source", "message"),
    [
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                (
                    "antlr4",
                    "raise ImportError('runtime 4.9.3, generated by 4.13.2')",
                    "runtime 4.9.3",
                ),
                ("latex2sympy2_extended", "raise ImportError('no parser')", "no parser"),
            )
        ),
        ("sympy", "import nowhere_to_be_found", "nowhere_to_be_found"),
        ("sympy", "import os; os._exit(7)", "exit status 7"),
    ],
    ids=["antlr", "parser", "sympy", "death"],
)
def test_a_worker_that_cannot_start_says_why(package, source, message, tmp_path):
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text(source)
    done = _python(GRADES, tmp_path)
    assert "GradingError" in done.stderr
    assert message in done.stderr
    assert "True" not in done.stdout
    assert "False" not in done.stdout


def test_a_parser_that_reads_nothing_is_noticed(tmp_path):
    """An antlr of another version raises at every formula."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'worker.py' in ' '.join(sys.argv + sys.orig_argv):\n"
        "    from latex2sympy2_extended import latex2sympy2\n"
        "    def nothing(*_, **__): raise Exception('could not deserialize')\n"
        "    latex2sympy2.latex2sympy = nothing\n"
    )
    done = _python(GRADES, tmp_path)
    assert "GradingError" in done.stderr
    assert "not found equal" in done.stderr


def test_an_interpreter_that_is_not_there_is_named(monkeypatch):
    POOL.close()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    verdicts._compare.cache_clear()
    with pytest.raises(GradingError, match="cannot be started"):
        grade(*KNOWN[0][:2])
    monkeypatch.undo()
    assert all_known()
