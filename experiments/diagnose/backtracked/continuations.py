"""Texts that go on from the steps of breached solutions, a line each.

A text belongs to (writer, solution, step, copy), and so does its noise: starts that coincide have
the same texts, which are written once, and neither batches nor interruptions matter. Lines hold

    rollout, writer, step, copy     whose text it is: the solution's `sample_id`, student or
                                    teacher, the 0-based step that it takes over at, and its number
    kept, prefix_crc                tokens of the student before it, and a checksum of prompt and
                                    these
    token_ids, text                 what was written, and the whole solution
    right, final, truncated         the whole solution's verdict, its final answer, whether no end
                                    of sequence came

Texts are sampled at the temperature of the solutions, and as long as a whole solution may be.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from rich.console import Console

from distill.roles import Role, role_key
from experiments.command.progress import Progress
from experiments.command.say import say
from experiments.diagnose.backtracked.settings import LINES, BacktrackedSettings
from experiments.diagnose.backtracked.starts import Breached, breached_solutions
from experiments.diagnose.monitored.kept_lines import KeptLines
from experiments.diagnose.monitored.pair_files import ROLES, PairFiles, open_pair
from experiments.diagnose.monitored.reading import Solutions
from experiments.grading import POOL, verdict
from experiments.machine.interruption import check
from experiments.rollouts.engine import Engine, Request, key_data
from experiments.rollouts.synthesis import fingerprint
from experiments.tasks.example import Example
from models.decoding.generate import make_slots
from models.decoding.sampling import Sampling
from models.text.tokenizer import decode, opens_thinking

# The teacher's are the paper's question.
WRITERS = ("teacher", "student")


def write_continuations(
    settings: BacktrackedSettings, solutions: Solutions, console: Console
) -> dict[int, dict[str, Any]]:
    """Writes the texts that are not there yet.

    Args:
      solutions: what was scored in the settings' directory.

    Returns:
      all lines, by their identity: see `identity`.

    Raises:
      FileNotFoundError: a model is missing.
      GradingError: answers cannot be compared on this machine.
      Interrupted: a signal asked the process to end.
      ValueError: nothing breaches, a model is another than the one that scored, or there are texts
        of other settings.
    """
    s = settings
    header = solutions.header
    names = {role: getattr(s, role) or header["paths"][role] for role in ROLES}
    pair = open_pair(names, header["dtypes"])
    for role in ROLES:
        if fingerprint(pair.directories[role]) != header[role]:
            raise ValueError(
                f"--{role}={names[role]} is another model than the one in {s.rollouts}. Name the "
                "directory that it is in now."
            )
    breached = breached_solutions(solutions, s.gamma_0, s.alpha, s.seed)
    if not breached:
        raise ValueError(
            f"None of {len(solutions.all)} solutions breaches at gamma_0={s.gamma_0:g} and "
            f"alpha={s.alpha:g}. Raise --gamma_0."
        )
    what = {"gamma_0": s.gamma_0, "alpha": s.alpha, "corrections": s.corrections, "seed": s.seed}
    scored = {name: x for name, x in header.items() if name not in ("kind", "paths")}
    lines = KeptLines(s.rollouts / LINES, {"kind": "header", **what, "scored": scored})
    wanted = {r.sample_id: r for r in _requests(breached, settings, header)}
    _check_known(lines, wanted)
    missing = {i: r for i, r in wanted.items() if i not in lines.known}
    if missing:
        POOL.start()
    found = {i: line for i, line in lines.known.items() if i in wanted}
    label = f"{len(breached)} breached solutions; {len(missing)} texts are to be written."
    say(console, label)
    with lines, Progress(len(wanted), len(found), "continue", console) as progress:
        for writer in WRITERS:
            own = [r for r in missing.values() if r.payload[0] == writer]
            for new in _written(writer, own, pair, settings, header):
                lines.add(new)
                found |= {line["sample_id"]: line for line in new}
                progress.update(len(found))
                if len(found) < len(wanted):
                    check(f"{len(found)} of {len(wanted)} texts are in {lines.path}.")
    return found


def identity(
    sample_id: int, writer: str, step: int, copy: int, corrections: int, max_new_tokens: int
) -> int:
    """The `sample_id` of a text's line."""
    place = sample_id * len(WRITERS) + WRITERS.index(writer)
    return (place * (max_new_tokens + 1) + step) * corrections + copy


def _requests(
    breached: list[Breached], settings: BacktrackedSettings, header: dict[str, Any]
) -> Iterator[Request]:
    """A request for every text, named by its identity; `_written` gives them their noise."""
    copies, most = settings.corrections, header["max_new_tokens"]
    no_key = np.zeros(2, np.uint32)
    for writer in WRITERS:
        for x in breached:
            for step in sorted(set(x.starts.values())):
                kept = x.prefix(step)
                tokens = (*x.solution.line["prompt_ids"], *kept)
                for copy in range(copies):
                    name = identity(x.sample_id, writer, step, copy, copies, most)
                    what = writer, x, step, copy, name
                    yield Request(tokens, name, no_key, what, most - len(kept))


def _check_known(lines: KeptLines, wanted: dict[int, Request]) -> None:
    for name, line in lines.known.items():
        if name in wanted and line["prefix_crc"] != _crc(wanted[name].prompt):
            raise ValueError(
                f"{lines.path}: a text goes on from another solution {line['rollout']} than is "
                "there now. Remove the file."
            )


def _crc(tokens: tuple[int, ...]) -> int:
    return zlib.crc32(np.array(tokens, np.int32).tobytes())


def _written(
    writer: str,
    requests: list[Request],
    pair: PairFiles,
    settings: BacktrackedSettings,
    header: dict[str, Any],
) -> Iterator[list[dict[str, Any]]]:
    """Lines of one writer's texts, as they end."""
    if not requests:
        return
    model = pair.load(writer)
    most = header["max_new_tokens"]
    sampling = Sampling(header["temperature"], vocab_size=pair.vocab_size)
    slots = make_slots(model.config, sampling, most, pair.eos)
    width = max(len(request.prompt) for request in requests)
    engine = Engine(slots, min(settings.batch_size, len(requests)), width)
    base = role_key(jax.random.key(settings.seed), Role.PROBE, WRITERS.index(writer))

    def keyed(request: Request) -> Request:
        _, x, step, copy, _ = request.payload
        key = key_data(jax.random.fold_in(base, x.sample_id))
        noise = step * settings.corrections + copy
        return Request(request.prompt, noise, key, request.payload, request.budget)

    for written, done in engine.run(model.params, map(keyed, requests)):
        yield [
            _line(written.tokens_BxN[b, : written.lengths_B[b]].tolist(), request, pair, header)
            for b, request in enumerate(done)
        ]


def _line(
    ids: list[int], request: Request, pair: PairFiles, header: dict[str, Any]
) -> dict[str, Any]:
    writer, x, step, copy, name = request.payload
    line = x.solution.line
    prompt, kept = line["prompt_ids"], x.prefix(step)
    text = decode(pair.tokenizer, [*kept, *ids])
    opened = opens_thinking(pair.tokenizer, prompt)
    fields = {**line["example"], "choices": tuple(line["example"]["choices"])}
    example = Example(reference="", **fields)
    graded = verdict(f"<think>{text}" if opened else text, example, header["answer"])
    return {
        "sample_id": name,
        "rollout": x.sample_id,
        "writer": writer,
        "step": step,
        "copy": copy,
        "kept": len(kept),
        "prefix_crc": _crc(request.prompt),
        "token_ids": ids,
        "text": text,
        "right": graded.right,
        "final": graded.final,
        "timed_out": graded.timed_out,
        "truncated": not (ids and ids[-1] in pair.eos),
    }
