"""What README and docs say can be typed can be typed, and what they point at is there."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path

import pytest
from ml_collections import ConfigDict

import models
from configs import motab
from experiments.config.tree import METHODS
from experiments.methods import RECIPES
from experiments.train.loop import run

from .documents import PAGES, ROOT, anchors, commands, links, read
from .test_structure import FLOORS

# Run by other code, never typed.
INTERNAL: tuple[str, ...] = ()


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
    exec(compile(block, "docs/adding_a_method.md", "exec", dont_inherit=True), names)
    monkeypatch.setitem(RECIPES, "surprise", names["SurpriseRecipe"])
    monkeypatch.setitem(METHODS, "surprise", names["SurpriseConfig"])
    config = motab.get_config("online-smoke")
    with config.unlocked():
        del config.motab
        config.method, config.surprise = "surprise", {"max_total": 48}
    config.steps, config.batch_size, config.checkpoint.every = 2, 8, 2
    config.synthesis.sync_every = 1
    results = run(config, tmp_path)
    assert results["loss_tokens"] > 0
    assert results["synthesis"]["tokens"]["student"] > 0


def config_of(flag: str) -> ConfigDict:
    """The config that `--config FILE[:ARG]` names."""
    file, _, arg = flag.partition(":")
    module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    return module.get_config(arg)


def has(config: ConfigDict, field: str) -> bool:
    """Whether `config` has a field of this dotted name."""
    node = config
    for name in field.split("."):
        if not isinstance(node, ConfigDict) or name not in node:
            return False
        node = node[name]
    return True


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_a_command_sets_fields_that_its_config_has(page):
    for command in commands(page):
        flags = dict(zip(command, [*command[1:], ""], strict=True))
        fields = [a.partition("=")[0] for a in command if a.startswith("--config.")]
        if fields and "FILE" not in flags["--config"]:
            config = config_of(flags["--config"])
            unknown = [f for f in fields if not has(config, f.removeprefix("--config."))]
            assert not unknown, " ".join(command)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_a_field_named_by_itself_is_one_of_some_config(page):
    configs = [
        config_of(name)
        for name in (
            "configs/motab.py",
            "configs/motab.py:online",
            "configs/atesd.py",
            "configs/topd.py",
            "configs/grpo.py",
            "configs/studies/motab.py",
        )
    ]
    for field in re.findall(r"--config\.([\w.]+)=", read(page)):
        assert any(has(config, field) for config in configs), field


def test_the_readme_shows_how_to_set_fields():
    assert len(re.findall(r"--config\.([\w.]+)=", read(Path("README.md")))) > 4


def test_the_readme_can_be_read_in_one_sitting():
    assert len(read(Path("README.md")).splitlines()) <= 145


@pytest.mark.parametrize("page", ["README.md", "docs/atesd.md", "docs/topd.md"])
def test_a_loop_of_ones_own_needs_nothing_of_experiments(page):
    (block,) = python_blocks(page)
    assert "experiments" not in block


def test_the_api_page_is_what_the_docstrings_say():
    spec = importlib.util.spec_from_file_location("make_api", ROOT / "docs" / "make_api.py")
    assert spec is not None and spec.loader is not None
    make_api = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_api)
    assert read(Path("docs/api.md")) == make_api.page(), "python docs/make_api.py writes it"


def test_the_citation_is_of_this_version_and_names_every_paper():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {models.__version__}\n" in citation
    pages = (*(f"docs/{x}.md" for x in ("motab", "atesd", "topd", "baselines")), "README.md")
    papers = {i for page in pages for i in re.findall(r"arxiv\.org/abs/([\d.]+)", read(Path(page)))}
    assert len(papers) > 8
    assert papers == set(re.findall(r"arXiv:([\d.]+)", citation))


def test_what_has_moved_is_where_the_changelog_says():
    rows = re.findall(r"^\| (`[^|]+) \| ([^|]+) \|$", read(Path("CHANGELOG.md")), re.M)
    assert len(rows) > 20
    for before, now in rows:
        olds = [old.rpartition(".")[2] for old in re.findall(r"`([\w.]+)`", before)]
        news = re.findall(r"`([\w./]+)`", now)
        if "the same names in" in now:
            news = [f"{news[0]}.{old}" for old in olds]
        elif all(new.startswith(".") for new in news[1:]):
            news = [news[0], *(f"{news[0].rpartition('.')[0]}{new}" for new in news[1:])]
        for new in news:
            path = ROOT / new.replace(".", "/")
            assert path.is_dir() or path.with_suffix(".py").is_file(), new


def test_the_architecture_names_every_room_on_its_floor():
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", read(Path("docs/architecture.md")), re.M)
    said = {room: int(floor) for floor, room in rows}
    true = {room: floor for floor, rooms in enumerate(FLOORS, start=1) for room in rooms}
    assert said == {room: true[room] for room in said}
    there = {p.parent.name for p in ROOT.glob("experiments/*/__init__.py")}
    assert there <= set(said), f"docs/architecture.md says nothing of {sorted(there - set(said))}"


def test_every_config_and_variant_is_described():
    named = set(re.findall(r"^\| `(configs/[\w/.:]+)` \|", read(Path("docs/configs.md")), re.M))
    there = set()
    for path in sorted((ROOT / "configs").rglob("*.py")):
        if "def get_config" in path.read_text():
            file = path.relative_to(ROOT).as_posix()
            module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
            arguments = module.ROLES if file.endswith("pretrain.py") else module.ARGUMENTS
            variants = (a for a in arguments if a != "smoke" and not a.endswith("-smoke"))
            there |= {f"{file}:{a}" if a else file for a in variants}
    assert named == there


def test_every_command_is_described():
    described = {command[2] for command in commands(Path("docs/commands.md"))}
    rooms = ROOT.glob("experiments/*/__main__.py")
    there = {f"experiments.{path.parent.name}" for path in rooms}
    for path in ROOT.glob("experiments/*.py"):
        if '__name__ == "__main__"' in path.read_text() and path.stem not in INTERNAL:
            there.add(f"experiments.{path.stem}")
    assert there <= described, f"docs/commands.md says nothing of {sorted(there - described)}"


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
