"""The HTML page: what it shows, that it shows it escaped, and that it needs nothing but itself."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser

import pytest

from experiments.report import page
from experiments.report.__main__ import main
from experiments.report.page import make_page
from experiments.workdir.results import read_run

from ..report_runs import HOSTILE, score, write_atesd, write_motab
from ..study_runs import write_lines

VOID = {"meta", "br", "img", "hr", "path", "use", "rect", "circle", "line", "image", "polygon"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; refuses one whose tags do not close in order."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.ids: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return {
        "motab": write_motab(root / "motab"),
        "hostile": write_motab(root / "hostile", HOSTILE),
        "atesd": write_atesd(root / "atesd"),
    }


@pytest.fixture
def no_panels(monkeypatch):
    """Drawing takes most of the time, and is tested elsewhere."""
    monkeypatch.setattr(page, "inline_svg", lambda draw, name, size=None: "")


@pytest.fixture(scope="module")
def several(runs):
    return make_page([read_run(path) for path in runs.values()])


def test_the_page_needs_nothing_but_itself(several):
    found = Page(several)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(found.tags)
    addresses = [v for k, v in found.attributes if k in ("href", "xlink:href", "src", "action")]
    assert addresses
    assert all(a.startswith(("#", "data:image/png;base64,")) for a in addresses)
    styles = "".join(re.findall(r"<style.*?</style>", several, re.DOTALL))
    assert "@import" not in styles and not re.search(r"url\((?!#)", several)
    assert not [k for k, _ in found.attributes if k.startswith("on")]
    assert "default-src 'none'" in several
    # Names of namespaces are no addresses that anything fetches.
    assert set(re.findall(r"https?://[\w./]+", several)) <= {"http://www.w3.org/1999/xlink"}


def test_ids_are_unique_and_every_reference_finds_its_own(several):
    found = Page(several)
    assert len(found.ids) == len(set(found.ids))
    wanted = {v[1:] for k, v in found.attributes if k.endswith("href") and v.startswith("#")}
    wanted |= set(re.findall(r"url\(#([^)]+)\)", several))
    assert wanted and wanted <= set(found.ids)


def test_whatever_a_run_holds_is_text(several):
    assert "<script" not in several
    assert html.escape(HOSTILE) in several.replace("&#34;", "&quot;")
    found = Page(several)
    # Twelve trajectories and their steps, six samples; the config shows values as JSON.
    assert found.text.count(HOSTILE) == 12 * 2 + 6
    assert json.dumps(HOSTILE) in found.text
    assert "7 * 7" in found.text and "{{ 49 }}" not in found.text


def test_parts_are_told_apart_and_steps_stand_against_their_boundary(runs, no_panels):
    text = make_page([read_run(runs["motab"])], trajectories=1, samples=0)
    for source in ("student", "flawed", "revision", "teacher"):
        assert len(re.findall(rf'<span class="part {source}" title="{source}">', text)) == 1
    (steps,) = re.findall(r'<div class="steps">(.*?)</table>', text, re.DOTALL)
    assert re.findall(
        r'<i style="left:0;width:([\d.]+)%"></i><b style="left:([\d.]+)%">', steps
    ) == [
        ("97.0", "35.0"),
        ("12.0", "69.0"),
    ]
    assert steps.count('class="breach"') == 1
    assert "root, breach" in " ".join(Page("<div>" + steps + "</table></div>").text.split())


def test_the_numbers_are_those_of_the_results(runs):
    text = " ".join(Page(make_page([read_run(runs["motab"])])).text.split())
    for shown in (
        "50.0 %",
        "94.0 %",
        "42.0 to 58.0",
        "1,565 (42.5 %)",
        "1:37",
        "40 of 40",
        "c0ffee",
    ):
        assert shown in text, shown
    assert "6 of 12 sampled" not in text and "12 of 12 sampled" in text
    assert "motab.gamma_00.7" in text.replace(" ", "")
    for title in ("V against gamma by step", "Monitor: V against its boundary", "Training loss"):
        assert title in text


def test_an_unfinished_run_shows_its_exposure(runs):
    text = Page(make_page([read_run(runs["atesd"])])).text
    assert "has not finished" in text and "25 of 30" in text
    for title in ("Exposure", "Beta policy over time", "Reward of completed decisions"):
        assert title in text
    assert "before" in text and "50.0 %" in text


def test_several_runs_stand_side_by_side(several):
    text = " ".join(Page(several).text.split())
    assert "Validation accuracy, 95 % interval" in text
    (differing,) = re.findall(r'id="config">.*?</table>', several, re.DOTALL)
    assert "optimizer.learning_rate" in differing and "student.path" in differing
    assert "optimizer.b1" not in differing


def test_an_evaluation_and_an_empty_run_are_read_as_well(tmp_path, no_panels):
    evaluation = tmp_path / "evaluation"
    evaluation.mkdir()
    settings = {"model": "models/mine", "data": ["aime24", "aime25"]}
    part = {k: v for k, v in score(0.125).items() if k not in ("mean_length", "truncation_rate")}
    results = {**score(0.25), "settings": settings, "groups": {"level 3": part}}
    (evaluation / "results.json").write_text(json.dumps(results))
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "config.json").write_text(json.dumps({"method": "motab", "steps": 3}))
    assert main([str(evaluation), str(empty), "--out", str(tmp_path / "page.html")]) == 0
    text = Page((tmp_path / "page.html").read_text()).text
    assert "models/mine on aime24, aime25" in text and "25.0 %" in text
    assert "models/mine on aime24, aime25: level 3" in text and "12.5 %" in text
    assert "0 of 3" in text


def test_a_score_that_is_not_finite_does_not_stop_the_page(tmp_path):
    directory = write_motab(tmp_path / "run")
    write_lines(
        directory / "metrics.jsonl",
        [{"step": s, "kind": "train", "loss": "nan" if s > 1 else 1.0} for s in (1, 2, 3)],
    )
    assert "not finite at 2 steps" in make_page([read_run(directory)])


def test_a_name_is_no_formula_and_powers_of_ten_are(tmp_path):
    named = [write_motab(tmp_path / name) for name in ("a$^2$", "_b")]
    for directory in named:
        write_lines(
            directory / "metrics.jsonl",
            [{"step": s, "kind": "train", "loss": 10.0**-s} for s in range(1, 5)],
        )
    text = Page(make_page([read_run(directory) for directory in named])).text
    assert "$^2$" in text and "mathdefault" not in text


def test_directories_of_one_name_are_told_apart(tmp_path, no_panels):
    a, b = write_motab(tmp_path / "a" / "run"), write_motab(tmp_path / "b" / "run")
    text = Page(make_page([read_run(a), read_run(b)])).text
    assert "a/run" in text and "b/run" in text
    assert "The runs have the same config." in text


def test_the_command_writes_beside_the_run_and_says_what_is_wrong(
    runs, tmp_path, capsys, no_panels
):
    assert main([str(runs["motab"])]) == 0
    assert (runs["motab"] / "report.html").read_text().startswith("<!doctype html>")
    assert main([str(runs["motab"]), str(runs["atesd"])]) == 2
    assert "give --out" in capsys.readouterr().err
    assert main([str(tmp_path / "nothing")]) == 1
    assert "no such directory" in capsys.readouterr().err
    assert main([str(runs["motab"]), "--samples", "-1"]) == 1
    assert "0 or more" in capsys.readouterr().err
