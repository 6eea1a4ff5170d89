"""Copies the results of studies into documents:

    python -m experiments.compare.collect README.md docs/studies/motab.md

Between `<!-- study DIRECTORY -->` and `<!-- end of study -->`, in a document, comes a table of the
table.json in DIRECTORY, which is relative to the document; `<!-- study DIRECTORY: opd, motab -->`
has these arms alone. Nothing else of the document changes.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from experiments.command.command import command
from experiments.command.flags import Flag
from experiments.compare.table.markdown import NONE, aligned, duration, estimate, remarks
from experiments.workdir.files import as_object, read_object, write_atomic
from experiments.workdir.outcome import TEST_SETS

_PART = re.compile(
    r"(<!-- study (\S+?)(?:: ([\w, -]+))? -->\n).*?(<!-- end of study -->)", re.DOTALL
)
TABLE = "table.json"


def collect(text: str, home: Path) -> str:
    """The document `text` with every study's part made anew.

    Args:
      home: directory of the document.

    Raises:
      FileNotFoundError: a directory that the document names has no table.json.
      ValueError: a part has no end, or names an arm that its study has not.
    """
    if text.count("<!-- study ") != len(_PART.findall(text)):
        raise ValueError("A <!-- study DIRECTORY --> has no <!-- end of study --> behind it.")

    def part(match: re.Match[str]) -> str:
        begin, directory, names, end = match.groups()
        file = home / directory / TABLE
        table = read_object(file)
        as_object(table.get("arms"), f"{file}: arms")
        arms = names.split(", ") if names else list(table["arms"])
        if unknown := [arm for arm in arms if arm not in table["arms"]]:
            raise ValueError(f"{directory} has no arm {', '.join(unknown)}.")
        return f"{begin}\n{summary(table, directory, arms)}\n\n{end}"

    return _PART.sub(part, text)


def summary(table: Mapping[str, Any], directory: str, arms: Sequence[str]) -> str:
    """Accuracies of some arms, with what they cost and where they come from.

    Args:
      table: as in table.json.
      directory: where it lies, for a link to the whole table.
      arms: which, by name.
    """
    environment, study = table["environment"], table["study"]
    rows = []
    for label, found in (("student before", table["start"]), ("teacher", table["teacher"])):
        if found["test"]:
            rows.append([label, *(_estimate(found[data]) for data in TEST_SETS), NONE])
    chosen = [table["arms"][name] for name in arms]
    for row in chosen:
        accuracy = row["accuracy"]
        rows.append(
            [
                row["label"],
                *(_estimate(accuracy[data]) for data in TEST_SETS),
                f"{row['loss_tokens']:,.0f}",
            ]
        )
    seeds = {len(row["seeds"]) for row in chosen}
    commits = ", ".join(commit[:8] for commit in environment["commits"])
    return "\n\n".join(
        [
            f"**{study['title']}**: {study['updates']} updates, "
            f"{' or '.join(map(str, sorted(seeds)))} {'seed' if seeds == {1} else 'seeds'}; "
            f"commit {commits}; "
            f"{environment['hardware']}; {duration(environment['run_seconds'])} for all runs. "
            f"[Everything else]({directory}/table.md).",
            aligned(["arm", "accuracy %", "longer problems %", "tokens trained on"], rows),
            *remarks(table, arms),
        ]
    )


def _estimate(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return NONE
    mean, interval = estimate(found)
    return f"{mean} ({interval})"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Where to collect results."""

    documents: Annotated[
        tuple[Path, ...], Flag("documents with parts for studies", "DOCUMENT", positional=True)
    ]


def run(settings: Settings) -> None:
    """Writes the documents whose results have changed.

    Raises:
      ValueError: a document could not be made.
    """
    for document in settings.documents:
        try:
            text = document.read_text(encoding="utf-8")
            made = collect(text, document.parent)
        except (OSError, ValueError) as error:
            raise ValueError(f"{document} was left as it is. {error}") from error
        if made != text:
            write_atomic(document, made.encode())
        print(f"{document}: {'written' if made != text else 'was up to date'}")


main = command("compare.collect", Settings, run, __doc__)

if __name__ == "__main__":
    sys.exit(main())
