"""`--print_config`: every field of a config has a value and a meaning, in a line."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

import pytest

from configs import atesd, motab, opd, pretrain
from experiments import run, synthesize
from experiments.config.describe import config_text, describe, meanings
from experiments.config.read import read_config
from experiments.config.reading import field_types, section_type
from experiments.config.sections import NO_ARCHITECTURE
from experiments.config.tree import METHODS, Config
from models.config import ModelConfig


def sections(kind: type) -> Iterator[type]:
    """A class of the tree, and those of the sections in it."""
    yield kind
    left_out = NO_ARCHITECTURE if kind is ModelConfig else ()
    for name, hint in field_types(kind).items():
        if name not in left_out and (section := section_type(hint, {})) is not None:
            yield from sections(section)


@pytest.mark.parametrize(
    "kind", sorted({c for m in METHODS.values() for c in sections(m)}, key=lambda c: c.__name__)
)
def test_every_field_of_every_section_has_a_meaning(kind):
    explained = meanings(kind)
    names = {f.name for f in dataclasses.fields(kind)} - (
        set(NO_ARCHITECTURE) if kind is ModelConfig else set()
    )
    assert names <= set(explained), names - set(explained)
    for name in names:
        meaning = explained[name]
        assert len(meaning) > 3 and "\n" not in meaning and not meaning.endswith("."), name


def test_an_entry_may_explain_several_fields_and_ends_with_its_first_sentence():
    @dataclasses.dataclass
    class Pot:
        """A pot.

        Attributes:
          width, height: of the rim, as in
            Eq. 5 of the paper. Bigger pots are heavier.
          lid: whether there is one.

        Raises:
          nothing: at all.
        """

        width: int
        height: int
        lid: bool

    of_the_rim = "of the rim, as in Eq. 5 of the paper"
    assert meanings(Pot) == {
        "width": of_the_rim,
        "height": of_the_rim,
        "lid": "whether there is one",
    }


def leaves(fields: dict, path: str = "") -> dict:
    found = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            found |= leaves(value, f"{path}{name}.")
        else:
            found[f"{path}{name}"] = value
    return found


@pytest.mark.parametrize(
    "config",
    [motab.get_config(), opd.get_config(), atesd.get_config(), pretrain.get_config("student")],
)
def test_what_a_config_gives_is_shown_as_it_is(config):
    tree = read_config(config)
    shown = {path: json.loads(value) for path, value, _ in describe(tree)}
    given = leaves(json.loads(json.dumps(config.to_dict())))
    assert given.items() <= shown.items()
    assert len(config_text(tree).splitlines()) == len(shown)


@pytest.mark.parametrize("main", [run.main, synthesize.main])
def test_the_commands_print_it_and_do_nothing_else(main, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = motab.__file__
    arguments = [f"--config={file}:smoke", "--config.motab.gamma_0=0.4", "--print_config"]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "steps = 12  # updates" in lines
    (line,) = [line for line in lines if line.startswith("motab.gamma_0 = ")]
    assert line.startswith("motab.gamma_0 = 0.4  # ")
    assert not list(tmp_path.iterdir())


def test_a_wrong_config_is_named_and_not_printed(capsys):
    file = motab.__file__
    assert run.main([f"--config={file}", "--config.evaluation.top_p=2.0", "--print_config"]) == 1
    found = capsys.readouterr()
    assert "evaluation.top_p=2.0 must lie in (0, 1]" in found.err and not found.out


def test_base_classes_explain_what_they_have():
    assert set(meanings(Config)) < set(meanings(METHODS["topd"]))
