"""What README and docs say can be typed can be typed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from configs import motab

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PAGES = sorted(p.relative_to(ROOT) for p in [ROOT / "README.md", *ROOT.glob("docs/*.md")])


@pytest.mark.parametrize("page", ["README.md", "docs/atesd.md"])
def test_the_python_example_runs(page):
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    names: dict = {}
    exec(compile(block, page, "exec"), names)
    assert int(names["state"].step) == 2
    assert float(names["metrics"]["loss"]) > 0


def test_every_field_named_on_a_command_line_exists():
    fields = re.findall(r"--config\.([\w.]+)=", README)
    assert len(fields) > 10
    config = motab.get_config()
    for field in fields:
        node = config
        for name in field.split("."):
            assert name in node, field
            node = node[name]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page):
    for target in set(re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / page).read_text())):
        assert (ROOT / page).parent.joinpath(target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_commands_name_modules_that_exist(page):
    for module in set(re.findall(r"python -m ([\w.]+)", (ROOT / page).read_text())):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
