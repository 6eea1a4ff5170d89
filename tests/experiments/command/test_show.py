"""Trajectories in the terminal: whose text has which colour, and which are shown."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from experiments.report.shown_trajectories import STYLES, select, show
from experiments.show import main
from experiments.workdir.results import read_run

from ..report_runs import trajectory, write_atesd, write_motab

RECORDS = [trajectory(step, index) for step in (1, 21) for index in range(6)]


def shown(workdir, n: int = 4, breached: bool = False, color: bool = True) -> str:
    file = io.StringIO()
    console = Console(
        file=file, width=100, force_terminal=color, color_system="truecolor" if color else None
    )
    records = read_run(Path(workdir)).all_trajectories
    show(select(records, n, breached=breached), console, color)
    return file.getvalue()


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return str(write_motab(tmp_path_factory.mktemp("runs") / "motab"))


def test_every_source_has_its_color(workdir, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = shown(workdir, 1, breached=True)
    codes = {
        source: re.search(rf"\x1b\[([\d;]+)m[^\x1b]*{re.escape(text)}", out)[1]
        for source, text in (
            ("student", "b=3+8=1."),
            ("flawed", "c=1*4=5."),
            ("revision", "However,"),
            ("teacher", "c=1*4=4."),
        )
    }
    assert set(codes) == set(STYLES)
    assert len(set(codes.values())) == 4


def test_without_colors_parts_are_named_and_steps_have_numbers(workdir):
    out = shown(workdir, 1, breached=True, color=False)
    assert "\x1b" not in out
    for text in ("[student] b=3+8=1.", "[flawed] c=1*4=5.", "[revision] However,", "root, breach"):
        assert text in out, text
    (first,) = re.findall(r"1 +0\.970 +0\.350 +(\S+)", out)
    assert (first.count("█"), first.index("│")) == (18, 7)
    (second,) = re.findall(r"2 +0\.120 +0\.690 +(\S+)", out)
    assert (second.count("█"), second.index("│")) == (2, 13)


def test_text_is_never_taken_for_markup(tmp_path):
    text = "[bold]x[/bold] [/] :smile: "
    out = shown(write_motab(tmp_path / "run", text), 1, color=False)
    assert "[student] " + text in out


def test_a_method_without_a_monitor_shows_its_text(tmp_path):
    out = shown(write_atesd(tmp_path / "run"), color=False)
    assert "[student] \\boxed{1}" in out and "gamma" not in out


def test_selection():
    assert [r["id"] for r in select(RECORDS, 2)] == ["chain/train/0/4", "chain/train/0/5"]
    assert len(select(RECORDS, 0)) == 12
    assert {r["step"] for r in select(RECORDS, 0, step=21)} == {21}
    assert {r["breach"] for r in select(RECORDS, 0, breached=True)} == {1}
    with pytest.raises(ValueError, match=r"steps \[1, 21\]"):
        select(RECORDS, 4, step=3)
    with pytest.raises(ValueError, match="--n -1"):
        select(RECORDS, -1)


def test_the_command_shows_what_is_asked_for(workdir, capsys, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert main([workdir, "--breached", "--n", "1"]) == 0
    printed = capsys.readouterr().out
    assert "[student] b=3+8=1." in printed and "\x1b" not in printed


def test_no_run_is_said_in_a_line(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "not a run's directory" in capsys.readouterr().err
