"""What README says can be typed can be typed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from configs import motab

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_the_python_example_runs():
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
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


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!http)([^)#]+)\)", README))))
def test_links_lead_somewhere(target):
    assert (ROOT / target).exists()


def test_commands_name_modules_that_exist():
    for module in set(re.findall(r"python -m ([\w.]+)", README)):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
