"""What README and docs say can be typed can be typed, and what they point at is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from configs import motab
from experiments import config_check
from experiments.loop import run
from experiments.methods import RECIPES

from .documents import PAGES, ROOT, anchors, commands, links, read


def python_blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        *(pytest.param(f"docs/{x}.md", marks=pytest.mark.slow) for x in ("atesd", "topd")),
    ],
)
def test_the_python_example_runs(page):
    (block,) = python_blocks(page)
    names: dict = {}
    exec(compile(block, page, "exec"), names)
    assert int(names["state"].step) == 2
    assert float(names["metrics"]["loss"]) > 0


@pytest.mark.slow
def test_the_method_that_the_docs_add_trains(tmp_path, monkeypatch):
    (block,) = python_blocks("docs/adding_a_method.md")
    names: dict = {}
    exec(compile(block, "docs/adding_a_method.md", "exec"), names)
    monkeypatch.setitem(RECIPES, "surprise", names["SurpriseRecipe"])
    monkeypatch.setattr(config_check, "OWN", (*config_check.OWN, "surprise"))
    config = motab.get_config("online-smoke")
    with config.unlocked():
        del config.motab
        config.method, config.surprise = "surprise", {"max_total": 48}
    config.steps, config.batch_size, config.checkpoint.every = 2, 8, 2
    results = run(config, tmp_path)
    assert results["loss_tokens"] > 0
    assert results["synthesis"]["tokens"]["student"] > 0


def test_every_field_named_on_a_command_line_exists():
    fields = re.findall(r"--config\.([\w.]+)=", read(Path("README.md")))
    assert len(fields) > 10
    config = motab.get_config()
    for field in fields:
        node = config
        for name in field.split("."):
            assert name in node, field
            node = node[name]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page):
    for link in links(page):
        target, _, anchor = link.partition("#")
        path = ((ROOT / page).parent / target).resolve() if target else ROOT / page
        assert path.exists(), link
        assert path.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(path.relative_to(ROOT)), link


def test_every_page_can_be_reached_from_the_readme():
    reached, new = set(), {Path("README.md")}
    while new:
        page = new.pop()
        reached.add(page)
        for link in links(page):
            path = ((ROOT / page).parent / link.partition("#")[0]).resolve()
            if path.suffix == ".md" and path.is_relative_to(ROOT):
                new |= {path.relative_to(ROOT)} - reached
    assert set(PAGES) <= reached, f"no link leads to {sorted(map(str, set(PAGES) - reached))}"


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_commands_name_modules_that_exist(page):
    for _, _, module, *_ in commands(page):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
