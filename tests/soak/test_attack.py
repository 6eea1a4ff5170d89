"""The attack command: quick classes of it, and that it tells what did not survive."""

from __future__ import annotations

import logging

import pytest

from .attack import REFUSED, SAID, SAME, Attack, Wrong, attempt, run_attacks


@pytest.mark.parametrize("kind", ["links", "stray", "hostile data"])
def test_quick_classes_survive(kind, tmp_path, capsys):
    assert run_attacks(tmp_path, 1, kind) == []
    row = capsys.readouterr().out.splitlines()[-1]
    tries, *_, survived = [cell.strip() for cell in row.strip("|").split("|")][1:]
    assert int(tries) == int(survived) > 5


def test_what_survives_and_what_does_not(tmp_path):
    def outcome(do) -> str:
        return attempt(Attack("kind", "name", do, ("file.json",)), tmp_path / "try")

    def fails(error):
        def do(_):
            raise error

        return do

    def warns(_) -> str:
        logging.getLogger("a").warning("file.json lacks a line")
        return SAID

    assert outcome(lambda _: SAME) == SAME
    assert outcome(warns) == SAID
    assert outcome(fails(ValueError("file.json is damaged"))) == REFUSED
    for do, message in (
        (fails(ValueError("something is wrong")), "nobody named"),
        (fails(KeyError("steps")), "KeyError"),
        (fails(Wrong("other weights")), "other weights"),
        (lambda _: SAID, "nobody named"),
    ):
        with pytest.raises(Wrong, match=message):
            outcome(do)
    assert not (tmp_path / "try").exists()
