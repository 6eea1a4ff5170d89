"""Paths with a scheme are refused wherever a path is taken, and leave no folder of that name."""

from __future__ import annotations

from pathlib import Path

import pytest

import models
from experiments.command.command import command
from experiments.workdir.workdir import Workdir, read_results, read_run_config
from models.embedded import model_directory, tokenizer_directory
from models.paths import local_path


@pytest.mark.parametrize(
    "path", ["gs://bucket/run", "s3://b", "hdfs://host/x", "file:///tmp/x", Path("gs://bucket/run")]
)
def test_a_scheme_is_refused(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for take in (
        local_path,
        model_directory,
        tokenizer_directory,
        models.load_config,
        models.load_pretrained,
        read_run_config,
        read_results,
        lambda p: Workdir(p, {"seed": 0}),
    ):
        with pytest.raises(ValueError, match="only local paths are read and written"):
            take(str(path))
    assert list(tmp_path.iterdir()) == []


def test_other_paths_are_taken_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in (
        "run",
        "/a/b",
        "a:b",
        "C:/runs",
        "embedded:student",
        "hub:owner/name",
        "runs/a:/b",
    ):
        assert local_path(path) == Path(path)
    assert local_path("~/runs") == tmp_path / "runs"


@pytest.mark.parametrize(
    "arguments",
    [
        ["report", "gs://bucket/run"],
        ["report", "runs/a", "--out", "gs://bucket/page.html"],
        ["export", "--workdir", "gs://bucket/run", "--out", "x"],
    ],
)
def test_commands_say_which_flag(arguments, tmp_path, monkeypatch, capsys):
    import importlib

    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(
        "experiments.export" if arguments[0] == "export" else "experiments.report.__main__"
    )
    main = command(arguments[0], module.Settings, module.run, "")
    assert main(arguments[1:]) == 2
    assert "only local paths are read and written, not gs://" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
