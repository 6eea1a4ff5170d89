"""What a run would read of a data set, and what it would leave out:

python -m experiments.data --name sample/gsm8k [--against aime24 ...] [--out clean.jsonl]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.data.fields import FIELDS
from experiments.data.filters import Filter
from experiments.data.sources import FileSource, Source, load_source
from experiments.workdir.workdir import write_atomic
from models.embedded import tokenizer_directory
from models.text.tokenizer import encode, load_tokenizer

_FILTER = {f.name: f for f in dataclasses.fields(Filter)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.data", description="Reads a data set as a run would."
    )
    add = parser.add_argument
    add("--name", required=True, help="as data.train.name in a config")
    add("--path", default="", help="a local copy of a known data set")
    add("--subset", default="", help="of the hub's data set")
    add("--split", default="", help="of the hub's data set, or of a folder")
    add("--size", type=int, default=0, help="examples at most; 0 for all")
    add("--fields", nargs="*", default=[], metavar="FIELD=NAME", help=f"FIELD: {', '.join(FIELDS)}")
    add(
        "--on_error", choices=("raise", "skip"), default="raise", help="of records that are no good"
    )
    for name, field in _FILTER.items():
        if isinstance(field.default, bool):
            add(f"--{name}", action="store_true", help="see experiments.data.filters.Filter")
        elif isinstance(field.default, tuple):
            add(f"--{name}", nargs="*", default=[], help="evaluation sets, by name or path")
        else:
            add(f"--{name}", type=type(field.default), default=field.default, help="see Filter")
    add("--tokenizer", default="", help="a model's directory: lengths in its tokens")
    add("--out", type=Path, help="a .jsonl file to write the examples to, in this project's schema")
    return parser


def run(options: argparse.Namespace, console: Console) -> Source:
    """Reads, shows and, with `out`, writes: examples there, what was left out beside them."""
    fields = {}
    for item in options.fields:
        field, equals, name = item.partition("=")
        if not equals:
            raise ValueError(f"--fields {item!r} must be of the form FIELD=NAME.")
        fields[field] = name
    count = None
    if options.tokenizer:
        tokenizer = load_tokenizer(tokenizer_directory(options.tokenizer))
        count = lambda text: len(encode(tokenizer, text))  # noqa: E731
    spec: dict[str, Any] = {
        "name": options.name,
        "size": options.size,
        "fields": fields,
        "filter": {name: getattr(options, name) for name in _FILTER},
    }
    spec |= {n: getattr(options, n) for n in ("path", "subset", "split", "on_error")}
    source = load_source(spec)
    if isinstance(source, FileSource):
        console.print(f"{options.name}: {source.report.summary}.", highlight=False)
    console.print(_lengths(source, count))
    if options.out:
        lines = [json.dumps(dataclasses.asdict(example)) for example in source]
        write_atomic(options.out, "".join(f"{line}\n" for line in lines).encode())
        console.print(f"Wrote {options.out}", highlight=False)
        if isinstance(source, FileSource) and source.report.dropped:
            beside = options.out.with_suffix(".dropped.jsonl")
            records = [
                {"id": id_, "reason": reason, "detail": detail}
                for reason, found in source.report.dropped.items()
                for id_, detail in found
            ]
            write_atomic(beside, "".join(json.dumps(r) + "\n" for r in records).encode())
            console.print(f"Wrote {beside}", highlight=False)
    return source


def _lengths(source: Source, count: Any) -> Table:
    unit = "tokens" if count else "characters"
    table = Table(
        "", "present", f"median {unit}", "95 %", "longest", title=f"{len(source):,} examples"
    )
    for field in ("problem", "reference", "answer"):
        texts = [text for text in (getattr(e, field) for e in source) if text]
        sizes = np.array([(count or len)(text) for text in texts] or [0])
        table.add_row(
            field,
            f"{len(texts):,}",
            *(f"{x:,.0f}" for x in (*np.quantile(sizes, (0.5, 0.95)), sizes.max())),
        )
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 when it could not be done."""
    options = _parser().parse_args(arguments)
    try:
        run(options, Console())
    except (ImportError, OSError, ValueError) as error:
        print(f"Nothing was read. {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
