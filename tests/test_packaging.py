"""Our generic names beside other packages of the same name; the wheel in a clean environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOREIGN = "print('foreign code ran')\n"


def foreign(directory: Path, name: str = "models") -> Path:
    """A package of somebody else's; its `__init__.py`."""
    (directory / name).mkdir(parents=True)
    file = directory / name / "__init__.py"
    file.write_text(FOREIGN)
    return file


def python(code: str, cwd: Path, *path: Path, executable: str = sys.executable):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    if path:
        environment["PYTHONPATH"] = os.pathsep.join(map(str, path))
    return subprocess.run(
        [executable, *code],
        cwd=cwd,
        env={**environment, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def refused(process, file: Path) -> bool:
    """Whether it ended in an error that names the file in the way, and ran nothing of it."""
    assert process.returncode != 0
    assert "foreign code ran" not in process.stdout
    assert f"takes the place of ours: {file} comes before {ROOT}" in process.stderr, process.stderr
    return "ImportError" in process.stderr


@pytest.mark.parametrize("name", ["models", pytest.param("configs", marks=pytest.mark.slow)])
def test_a_foreign_package_before_ours_is_named(name, tmp_path):
    room = {"models": "distill", "configs": "experiments"}[name]
    in_cwd = foreign(tmp_path / "cwd", name)
    assert refused(python(["-c", f"import {room}"], in_cwd.parents[1], ROOT), in_cwd)
    on_path = foreign(tmp_path / "site", name)
    process = python(["-c", f"import {room}"], tmp_path, on_path.parents[1], ROOT)
    assert refused(process, on_path)


def test_already_imported_it_is_named_too(tmp_path):
    file = foreign(tmp_path)
    process = python(["-c", "import models; import distill"], tmp_path, ROOT)
    assert f"takes the place of ours: {file}" in process.stderr


def test_a_foreign_package_behind_ours_does_no_harm(tmp_path):
    foreign(tmp_path / "site")
    (tmp_path / "models").mkdir()  # a folder without __init__.py is no package
    code = "import distill, models; print(models.__all__[0])"
    process = python(["-c", code], tmp_path, ROOT, tmp_path / "site")
    assert process.stdout == "Generation\n", process.stderr


@pytest.mark.parametrize(
    "room", ["motab", "atesd", "topd", "grpo", "mixtures", "family", "experiments"]
)
def test_no_room_runs_a_foreign_package(room, tmp_path):
    file = foreign(tmp_path)
    assert refused(python(["-c", f"import {room}"], tmp_path, ROOT), file)


# An editable installation with a finder: asked after the path, on which it has no place, also
# where this environment's own installation has one.
FINDER = f"""
import importlib.util, sys
from importlib.machinery import PathFinder
from pathlib import Path
sys.path[:] = [place for place in sys.path if not Path(place, "distill", "__init__.py").is_file()]
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        file = Path({str(ROOT)!r}) / name / "__init__.py"
        if "." not in name and file.is_file():
            folder = [str(file.parent)]
            return importlib.util.spec_from_file_location(
                name, file, submodule_search_locations=folder)
sys.meta_path.insert(sys.meta_path.index(PathFinder) + 1, Finder)
"""


@pytest.mark.parametrize("first", ["import motab, models", "import models, motab, models"])
def test_a_folder_of_weights_beside_a_script_is_not_in_the_way(first, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(FINDER)
    (tmp_path / "job" / "models" / "Qwen3-4B").mkdir(parents=True)
    (tmp_path / "job" / "models" / "Qwen3-4B" / "model.safetensors").touch()
    script = tmp_path / "job" / "train.py"
    script.write_text(f"{first}\nimport models\nprint(models.load_pretrained.__module__)\n")
    process = python([str(script)], tmp_path / "job", tmp_path / "site")
    assert process.stdout == "models.huggingface.checkpoint\n", process.stderr


def test_a_folder_of_modules_that_is_in_use_is_named(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(FINDER)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.py").write_text("")
    process = python(["-c", "import models.mine, distill"], tmp_path, tmp_path / "site")
    assert f"takes the place of ours: {tmp_path / 'models'} comes before" in process.stderr


def test_a_room_that_is_missing_or_overwritten_is_named(tmp_path):
    shutil.copytree(ROOT / "distill", tmp_path / "distill")
    # -S: this environment may have an installation of ours.
    process = python(["-S", "-c", "import distill"], tmp_path)
    assert "no package 'models' beside" in process.stderr
    assert "pip install -e ." in process.stderr  # no name on the package index is anybody's of ours
    assert "install motab" not in process.stderr
    file = foreign(tmp_path)
    process = python(["-S", "-c", "import distill"], tmp_path)
    assert f"{file} was overwritten by another package named 'models'" in process.stderr
    assert "foreign code ran" not in process.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The interpreter of an environment that has our wheel, and finds what it needs in this one."""
    base = tmp_path_factory.mktemp("wheel")
    source = base / "source"
    skip = shutil.ignore_patterns("__pycache__", ".git", "runs", "build", "*.egg-info", "tests")
    shutil.copytree(ROOT, source, ignore=skip)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    wheels = base / "wheels"
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(wheels), str(source)], check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(base / "venv")], check=True)
    executable = base / "venv" / "bin" / "python"
    (wheel,) = wheels.glob("*.whl")
    install = ["--python", str(executable), "install", "--no-deps", "--no-index", str(wheel)]
    # An installation on the path would count as this one.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run([*pip, *install], env=environment, check=True)
    (site,) = (base / "venv" / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return str(executable), site


@pytest.mark.slow
def test_the_wheel_in_a_clean_environment(installed, tmp_path):
    executable, site = installed
    code = """
import motab, atesd, topd, models
from models.embedded import model_directory
from models.text.tokenizer import load_tokenizer
from configs.motab import get_config
config, params = models.load_pretrained(model_directory(get_config().student.path))
print(models.__file__, config.family, len(load_tokenizer(model_directory("embedded:teacher"))))
"""
    process = python(["-c", code], tmp_path, executable=executable)
    assert process.returncode == 0, process.stderr
    assert process.stdout.split()[:2] == [str(site / "models" / "__init__.py"), "qwen3"]
    assert not (site / "tests").exists()


@pytest.mark.slow
@pytest.mark.parametrize("code", [["-c", "import motab"], ["-m", "experiments.run", "--help"]])
def test_the_wheel_beside_a_foreign_package(code, installed, tmp_path):
    """In the working directory; in another directory of packages; installed over ours."""
    executable, site = installed
    file = foreign(tmp_path / "cwd")
    process = python(code, tmp_path / "cwd", executable=executable)
    message = f"takes the place of ours: {file} comes before {site / 'models'}"
    assert process.returncode != 0
    assert message in process.stderr, process.stderr
    assert "foreign code ran" not in process.stdout
    process = python(code, tmp_path, tmp_path / "cwd", executable=executable)
    assert message in process.stderr, process.stderr
    ours = (site / "models" / "__init__.py").read_text()
    (site / "models" / "__init__.py").write_text(FOREIGN)
    try:
        process = python(code, tmp_path, executable=executable)
        assert "was overwritten by another package named 'models'" in process.stderr
        assert "foreign code ran" not in process.stdout
    finally:
        (site / "models" / "__init__.py").write_text(ours)


def test_every_room_says_what_it_exports_and_its_version():
    import importlib
    import importlib.metadata

    versions = set()
    for name in (
        "models",
        "distill",
        "motab",
        "atesd",
        "topd",
        "grpo",
        "mixtures",
        "family",
        "experiments",
    ):
        room = importlib.import_module(name)
        assert sorted(room.__all__) == sorted(set(room.__all__))
        missing = [exported for exported in room.__all__ if not hasattr(room, exported)]
        assert not missing, f"{name} has no {missing}"
        versions.add(room.__version__)
    assert len(versions) == 1
    setup = subprocess.run(
        [sys.executable, "setup.py", "--version"], cwd=ROOT, capture_output=True, text=True
    )
    assert setup.stdout.split()[-1:] == list(versions), setup.stderr
