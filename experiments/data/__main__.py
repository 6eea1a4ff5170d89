"""What a run would read of a data set, and what it would leave out:

python -m experiments.data --name sample/gsm8k --against aime24 --out clean.jsonl
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.command.command import command
from experiments.command.flags import Flag
from experiments.command.say import say
from experiments.data.fields import FIELDS
from experiments.data.filters import Filter
from experiments.data.sources import ON_ERROR, FileSource, Source, load_source
from experiments.workdir.workdir import write_atomic
from models.embedded import tokenizer_directory
from models.text.tokenizer import encode, load_tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(Filter):
    """What to read, what of it to keep, and what to show of it."""

    name: Annotated[str, Flag("as data.train.name in a config")]
    path: Annotated[str, Flag("a local copy of a known data set")] = ""
    subset: Annotated[str, Flag("of the hub's data set")] = ""
    split: Annotated[str, Flag("of the hub's data set, or of a folder")] = ""
    size: Annotated[int, Flag("examples at most; 0 for all")] = 0
    fields: Annotated[
        tuple[str, ...], Flag(f"FIELD is one of {', '.join(FIELDS)}", "FIELD=NAME")
    ] = ()
    on_error: Annotated[str, Flag("what becomes of records that are no good", choices=ON_ERROR)] = (
        "raise"
    )
    tokenizer: Annotated[str, Flag("a model's directory: lengths in its tokens", "DIR")] = ""
    out: Annotated[Path | None, Flag("a file to write the examples to", "FILE.jsonl")] = None


def read(settings: Settings, console: Console) -> Source:
    """Reads, shows and, with `out`, writes: examples there, what was left out beside them."""
    fields = {}
    for item in settings.fields:
        field, equals, name = item.partition("=")
        if not equals:
            raise ValueError(f"--fields {item!r} must be of the form FIELD=NAME.")
        fields[field] = name
    count = None
    if settings.tokenizer:
        tokenizer = load_tokenizer(tokenizer_directory(settings.tokenizer))
        count = lambda text: len(encode(tokenizer, text))  # noqa: E731
    spec: dict[str, Any] = {
        "name": settings.name,
        "size": settings.size,
        "fields": fields,
        "filter": {f.name: getattr(settings, f.name) for f in dataclasses.fields(Filter)},
    }
    spec |= {n: getattr(settings, n) for n in ("path", "subset", "split", "on_error")}
    source = load_source(spec)
    if isinstance(source, FileSource):
        say(console, f"{settings.name}: {source.report.summary}.")
    console.print(_lengths(source, count))
    if settings.out:
        lines = [json.dumps(dataclasses.asdict(example)) for example in source]
        write_atomic(settings.out, "".join(f"{line}\n" for line in lines).encode())
        say(console, f"Wrote {settings.out}")
        if isinstance(source, FileSource) and source.report.dropped:
            beside = settings.out.with_suffix(".dropped.jsonl")
            records = [
                {"id": id_, "reason": reason, "detail": detail}
                for reason, found in source.report.dropped.items()
                for id_, detail in found
            ]
            write_atomic(beside, "".join(json.dumps(r) + "\n" for r in records).encode())
            say(console, f"Wrote {beside}")
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


def run(settings: Settings) -> None:
    """Reads, and shows what there is."""
    read(settings, Console())


main = command("data", Settings, run, __doc__)

if __name__ == "__main__":
    sys.exit(main())
