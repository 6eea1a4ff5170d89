"""Every notebook runs from its first cell to its last, on little; it is kept without outputs."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import subprocess
from importlib.metadata import version
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# What stands in for a notebook's cell of parameters.
SHORT = {
    "quickstart": 'steps, trajectories, problems, workdir = 4, 64, 16, "quickstart"',
    "reading_a_trajectory": 'problem, rows, seed = "a=3,b=+8,c=*4?", 8, 0',
    "your_own_loop": "steps, rows = 2, 8",
    "your_own_pair": 'student = teacher = data = workdir = ""; steps, rows = 2, 8',
}


def shorten(notebook: nbformat.NotebookNode, source: str) -> None:
    """Puts other parameters, of the same names, in place of the notebook's."""
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    theirs, ours = ({}, {})
    exec(cell.source, theirs)
    exec(source, ours)
    assert theirs.keys() == ours.keys(), "the notebook has other parameters"
    cell.source = source


def execute(path: Path, directory: Path, source: str) -> str:
    """The text that the notebook printed."""
    notebook = nbformat.read(path, as_version=4)
    shorten(notebook, source)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": directory}}
    )
    client.execute(env=environment)
    return "".join(o.get("text", "") for c in notebook.cells for o in c.get("outputs", []))


def test_every_notebook_is_tested():
    assert {path.stem for path in NOTEBOOKS} == set(SHORT)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_valid_and_kept_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert "pip" in code[0].source
    for cell in code:
        compile(cell.source, path.name, "exec")


def install(path: Path, directory: Path, monkeypatch, installed: set[str]) -> list[list[str]]:
    """The commands that the first code cell runs in `directory`, where `motab` is missing."""
    ran: list[list[str]] = []
    monkeypatch.chdir(directory)
    monkeypatch.setattr(subprocess, "run", lambda command, check: ran.append(command))
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: name if name in installed else None
    )
    cell = next(c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code")
    exec(compile(cell.source, path.name, "exec"), {})
    return ran


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_installs_the_clone_and_keeps_jax(path, tmp_path, monkeypatch):
    (ran,) = install(path, ROOT / "notebooks", monkeypatch, {"jax", "jaxlib"})
    assert ran[1:5] == ["-m", "pip", "install", "-q"]
    assert Path(ran[5]).resolve() == ROOT
    assert ran[6:] == [f"jax=={version('jax')}", f"jaxlib=={version('jaxlib')}"]
    (ran,) = install(path, ROOT / "notebooks", monkeypatch, set())
    assert len(ran) == 6, "without a jax there is none to keep"
    assert install(path, tmp_path, monkeypatch, {"motab"}) == []
    with pytest.raises(RuntimeError, match="set REPOSITORY"):
        install(path, tmp_path, monkeypatch, set())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_text_of_a_notebook_has_no_escapes_of_its_file(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            assert "\\n" not in cell.source.replace("\\nu", "")
            assert "\\\\" not in cell.source, "a backslash twice is a line break in TeX"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_imports_is_there(path):
    """Notebooks that are run at night alone would break unseen."""
    code = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    imports = [n for c in code for n in ast.walk(ast.parse(c)) if isinstance(n, ast.ImportFrom)]
    for node in imports:
        if importlib.util.find_spec(node.module.partition(".")[0]).origin.startswith(str(ROOT)):
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                module = importlib.import_module(node.module)
                assert hasattr(module, name.name) or importlib.util.find_spec(whole), whole


@pytest.mark.slow
def test_a_trajectory_is_read_step_by_step(tmp_path):
    path = ROOT / "notebooks" / "reading_a_trajectory.ipynb"
    text = execute(path, tmp_path, SHORT["reading_a_trajectory"])
    theirs, ours = (
        text.partition(name)[2].partition("]")[0].strip(" :[").split()
        for name in ("by the rollout", "by hand")
    )
    assert len(theirs) == len(ours) > 0
    assert list(map(float, theirs)) == pytest.approx(list(map(float, ours)), abs=2e-4)
    assert "BREACH" in text and "REVISION" in text


@pytest.mark.slow
def test_the_quickstart(tmp_path):
    text = execute(ROOT / "notebooks" / "quickstart.ipynb", tmp_path, SHORT["quickstart"])
    assert "points of accuracy" in text
    assert (tmp_path / "quickstart" / "report.html").exists()
    assert (tmp_path / "quickstart" / "results.json").exists()


@pytest.mark.slow
def test_a_pair_of_ones_own(tmp_path):
    """Copies of the embedded models in place of downloaded ones: local directories."""
    import shutil

    embedded = ROOT / "models" / "embedded"
    for role in ("student", "teacher"):
        shutil.copytree(embedded / role, tmp_path / "models" / role)
    source = (
        'student, teacher = "models/student", "models/teacher"\n'
        'data, workdir, steps, rows = "problems", "mine", 2, 8'
    )
    execute(ROOT / "notebooks" / "your_own_pair.ipynb", tmp_path, source)
    out = {p.name for p in (tmp_path / "mine" / "model").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= out


@pytest.mark.slow
def test_a_loop_of_ones_own(tmp_path):
    text = execute(ROOT / "notebooks" / "your_own_loop.ipynb", tmp_path, SHORT["your_own_loop"])
    assert "'backtracked'" in text and "'divergence'" in text
