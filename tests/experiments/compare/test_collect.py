"""Results of studies in documents."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from experiments.compare.collect import collect, main
from experiments.compare.table.markdown import make_markdown

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs" / "studies").glob("*.md")])


def _estimate(mean: float) -> dict:
    return {"mean": mean, "interval": [mean - 0.02, mean + 0.03]}


@pytest.fixture
def home(tmp_path):
    """A directory with a study of OPD, which has seeds 0 and 1, and SFT, which has 0."""
    table = {
        "study": {"title": "OPD", "updates": 7},
        "environment": {"commits": ["0123456789"], "hardware": "1 x cpu", "run_seconds": 61.0},
        "start": {"test": _estimate(0.5), "long": None},
        "teacher": {"test": None, "long": None},
        "arms": {
            name: {
                "label": name.upper(),
                "accuracy": {"test": _estimate(0.75), "long": _estimate(0.25)},
                "loss_tokens": 1234.0,
                "seeds": seeds,
            }
            for name, seeds in {"opd": [0, 1], "sft": [0]}.items()
        },
    }
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "table.json").write_text(json.dumps(table))
    return tmp_path


TEXT = "before\n<!-- study few -->\nstale\n<!-- end of study -->\nafter\n"


def test_a_part_is_made_of_its_table_and_the_rest_stays(home):
    made = collect(TEXT, home)
    assert made.startswith("before\n<!-- study few -->\n") and made.endswith(" -->\nafter\n")
    assert "stale" not in made
    cells = [
        [c.strip() for c in line.split("|")[1:-1]] for line in made.splitlines() if "|" in line
    ]
    assert cells[2:] == [
        ["student before", "50.0 (48.0 to 53.0)", "—", "—"],
        ["OPD", "75.0 (73.0 to 78.0)", "25.0 (23.0 to 28.0)", "1,234"],
        ["SFT", "75.0 (73.0 to 78.0)", "25.0 (23.0 to 28.0)", "1,234"],
    ]
    assert "7 updates, 1 or 2 seeds; commit 01234567; 1 x cpu; 0:01:01" in made
    assert "(few/table.md)" in made
    assert collect(made, home) == made


def test_a_part_may_name_its_arms(home):
    made = collect(TEXT.replace("study few", "study few: sft"), home)
    assert "SFT" in made and "| OPD" not in made and "7 updates, 1 seed;" in made
    with pytest.raises(ValueError, match="few has no arm ppo"):
        collect(TEXT.replace("study few", "study few: sft, ppo"), home)


def test_a_remark_about_an_arm_stands_where_the_arm_does(home):
    file = home / "few" / "table.json"
    table = json.loads(file.read_text()) | {"remarks": {"sft": "it was run on another day."}}
    table["study"]["labels"] = {"opd": "OPD", "sft": "SFT"}
    file.write_text(json.dumps(table))
    assert "**SFT**: it was run on another day." in collect(TEXT, home)
    assert "another day" not in collect(TEXT.replace("study few", "study few: opd"), home)


@pytest.mark.parametrize("text", ["<!-- study few -->\n", TEXT + "<!-- study few -->\n"])
def test_a_part_without_an_end_is_an_error(home, text):
    with pytest.raises(ValueError, match="end of study"):
        collect(text, home)


def test_the_command(home, capsys):
    document = home / "doc.md"
    document.write_text(TEXT)
    assert main([str(document)]) == 0
    assert "OPD" in document.read_text()
    assert main([str(document)]) == 0
    assert "was up to date" in capsys.readouterr().out
    document.write_text(TEXT.replace("few", "many"))
    assert main([str(document)]) == 1
    assert "left as it is" in capsys.readouterr().err
    assert "stale" in document.read_text()
    assert main([]) == 2


@pytest.mark.parametrize(
    "study", sorted((ROOT / "docs" / "studies").glob("*/table.json")), ids=lambda p: p.parent.name
)
def test_a_study_shows_the_table_that_it_keeps(study):
    """What lies side by side says the same."""
    page = study.with_name("table.md").read_text(encoding="utf-8")
    pictures = re.findall(r"^!\[\w+\]\((\S+)\)$", page, re.MULTILINE)
    assert page == make_markdown(json.loads(study.read_text(encoding="utf-8")), pictures)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_have_the_results_of_the_studies(document):
    text = document.read_text(encoding="utf-8")
    assert collect(text, document.parent) == text, "python -m experiments.compare.collect writes it"
