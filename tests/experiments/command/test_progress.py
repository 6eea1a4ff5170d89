"""The progress display on a terminal and in a log file, and the final table."""

import io
import re
import time

import jax
from rich.console import Console

from experiments.command.progress import Progress, summary_table

RESULTS = {
    "before": {
        "accuracy": 0.38, "interval": [0.3375, 0.4225], "n": 512, "samples": 1,
        "mean_length": 71.25, "truncation_rate": 0.002,
    },
    "after": {
        "accuracy": 0.912, "interval": [0.887, 0.936], "n": 512, "samples": 1,
        "mean_length": 80.0, "truncation_rate": 0.0,
    },
    "teacher": {
        "accuracy": 0.99, "interval": [0.98, 1.0], "n": 512, "samples": 1,
        "mean_length": 90.0, "truncation_rate": 0.0,
    },
    "synthesis": {
        "backtracked": 0.614,
        "tokens": {"student": 6000, "flawed": 500, "revision": 1500, "teacher": 2000},
    },
    "seed": 0,
    "wall_seconds": 203.4,
    "compile_seconds": 62.0,
}  # fmt: skip


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def console(terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=110, color_system=None)


def shown(renderable):
    screen = console(False)
    screen.print(renderable)
    return screen.file.getvalue()


def run(progress, clock, steps, seconds_per_step):
    with progress:
        for step in steps:
            clock.now += seconds_per_step
            progress.update(step, tokens_per_second=5120.4, loss=1 / step)


def test_a_log_file_gets_a_line_now_and_then():
    clock, screen = Clock(), console(False)
    progress = Progress(200, console=screen, every_seconds=5, clock=clock)
    run(progress, clock, range(1, 201), 0.1)  # 20 seconds in all
    lines = screen.file.getvalue().splitlines()
    assert len(lines) in (5, 6, 7)
    assert lines[0] == "train 0/200"
    assert lines[1].startswith("train 1/200  5,120 tok/s  loss 1.0000")
    assert lines[-1].startswith("train 200/200")
    assert "\x1b" not in screen.file.getvalue()


def test_a_step_that_takes_long_says_that_it_goes_on():
    screen = console(False)
    with Progress(3, start=1, console=screen, quiet_seconds=0.02) as progress:
        jax.jit(lambda x: x + 17).lower(1.0).compile()
        time.sleep(0.5)
        progress.update(2)
    lines = screen.file.getvalue().splitlines()
    assert lines[0] == "train 1/3" and lines[-1].startswith("train 2/3")
    assert len(lines) > 4
    assert all(re.fullmatch(r"train 1/3  0:0\d so far, \d+ programs compiled in 0:0\d", line)
               for line in lines[1:-1])  # fmt: skip
    assert not lines[-2].endswith("so far, 0 programs compiled in 0:00")


def test_eta_is_of_the_recent_pace():
    clock, screen = Clock(), console(False)
    progress = Progress(1000, start=500, console=screen, every_seconds=0, clock=clock)
    run(progress, clock, range(501, 503), 30)  # compiling
    run(progress, clock, range(503, 703), 0.5)
    lines = screen.file.getvalue().splitlines()
    assert lines[:2] == ["train 500/1000", "train 501/1000  5,120 tok/s  loss 0.0020"]
    assert lines[-1].startswith(
        "train 702/1000  ETA 2:29  5,120 tok/s"
    )  # 298 steps of half a second


def test_accuracy_stays_until_the_next_one():
    clock, screen = Clock(), console(False)
    progress = Progress(10, console=screen, every_seconds=0, clock=clock)
    progress.update(1, accuracy=0.5)
    progress.update(2, loss=0.25)
    assert screen.file.getvalue().splitlines() == [
        "train 1/10  accuracy 50.0 %",
        "train 2/10  loss 0.2500  accuracy 50.0 %",
    ]


def test_a_terminal_gets_a_bar():
    clock, screen = Clock(), console(True)
    progress = Progress(20, console=screen, clock=clock)
    with progress:
        screen.print("after 0 steps: 50 %")
    run(progress, clock, range(1, 21), 1)
    text = screen.file.getvalue()
    assert "after 0 steps: 50 %" in text
    assert "20/20" in text
    assert "5,120 tok/s" in text
    assert "loss 0.0500" in text
    assert "\x1b[" in text


def test_the_final_table():
    text = shown(summary_table(RESULTS))
    rows = [line.split() for line in text.splitlines()]
    assert [
        "before",
        "38.0",
        "%",
        "33.8",
        "to",
        "42.2",
        "512",
        "71.2",
        "tokens",
        "0.2",
        "%",
    ] in rows
    assert ["after", "91.2", "%", "88.7", "to", "93.6", "512", "80.0", "tokens", "0.0", "%"] in rows
    assert any(row[:1] == ["teacher"] for row in rows)
    assert "change: +53.2 points" in text
    assert "trajectories backtracked: 61.4 %" in text
    assert "student 6,000 (60.0 %), flawed 500 (5.0 %), revision 1,500 (15.0 %)" in text
    assert "wall time: 3:23" in text


def test_a_table_without_teacher_or_synthesis():
    results = {**RESULTS, "teacher": None, "synthesis": None}
    results["after"] = {**RESULTS["after"], "accuracy": "nan"}
    text = shown(summary_table(results))
    assert "teacher" not in text
    assert "backtracked" not in text
    assert "nan %" in text
    none = {"backtracked": 0.0, "tokens": {"student": 0, "teacher": 0}}
    assert "tokens: none" in shown(summary_table({**RESULTS, "synthesis": none}))
