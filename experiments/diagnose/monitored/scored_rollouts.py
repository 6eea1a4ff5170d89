"""Solutions of a student, scored by a teacher and never corrected, a line each.

rollouts.jsonl begins with a header: fingerprints of both models, prompt, data, monitor and
sampling, all of which a later call must repeat (`size` may grow), and `paths`, which may change.
Then, as solutions end and in no order, lines of

    sample_id                      the problem's place in the data times n, plus the copy's number
    example                        the problem with its answer, without its reference
    prompt_ids, token_ids, text    of the prompt, and of the solution
    step_ends                      tokens of the solution up to the end of each step
    values, entropies, steps       of each step: V (Eq. 5), the teacher's H in nats at its start
                                   (Eq. 6, over its 20 likeliest tokens), and its text
    right, final, truncated        the verdict, the final answer, whether no end of sequence came

and a checksum. The rollout is MOTAB's own with gamma_0 = 0, below which no V lies, so that no
boundary needs to be known: any can be drawn through the same solutions afterwards.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from rich.console import Console

import motab
from distill.steps.table import make_step_table
from distill.trajectories import Source
from experiments.command.progress import Progress
from experiments.command.prompt_flags import PromptFlags
from experiments.command.say import say
from experiments.data.batches import prompt_ids
from experiments.data.sources import load_source
from experiments.diagnose.monitored.kept_lines import KeptLines
from experiments.diagnose.monitored.pair_files import ROLES, PairFiles, open_pair
from experiments.diagnose.monitored.settings import ROLLOUTS, ScoreSettings
from experiments.grading import POOL, verdict
from experiments.machine.interruption import check
from experiments.pair.positions import check_positions
from experiments.rollouts.engine import Engine, Request, key_data
from experiments.rollouts.synthesis import fingerprint
from experiments.tasks.example import Example
from models import ModelConfig
from models.decoding.slots import Slots
from models.text.tokenizer import decode, encode, opens_thinking, token_bytes


def score_rollouts(settings: ScoreSettings, console: Console) -> None:
    """Writes and scores the solutions that are not there yet.

    Raises:
      FileNotFoundError: there is no such template or data set.
      GradingError: answers cannot be compared on this machine.
      Interrupted: a signal asked the process to end.
      RuntimeError: a score is not finite.
      ValueError: there is no such model, the two have other tokenizers, a file is malformed or of
        other settings, or texts exceed the positions of a model.
    """
    # Whatever can be wrong with cheap things comes before the weights are read.
    s = settings
    names = {role: getattr(s, role) for role in ROLES}
    dtypes = {"student": s.dtype, "teacher": s.teacher_dtype or s.dtype}
    pair = open_pair(names, dtypes, s.chat_template)
    examples = list(load_source({"name": s.data, "size": s.size}, needs_answer=True))
    tokenizer, render = s.tokenizer_and_renderer(pair.directories["student"])
    prompts = [tuple(prompt_ids(example, render, pair.positions)) for example in examples]
    width = max(map(len, prompts))
    both = f"Prompts of {width} tokens and --max_new_tokens={s.max_new_tokens} together"
    check_positions({both: width + s.max_new_tokens}, pair.configs)
    encode(tokenizer, s.delimiter_text)  # it can be written at all
    lines = KeptLines(s.out / ROLLOUTS, _header(settings, pair), free=("paths",))
    _check_known(lines, examples, prompts, s.n)
    total = len(examples) * s.n
    missing = [i for i in range(total) if i not in lines.known]
    if not missing:
        say(console, f"All {total} solutions are in {lines.path}.")
        return
    POOL.start()
    done = total - len(missing)
    with lines, Progress(total, done, "score", console) as progress:
        student, teacher = (pair.load(role) for role in ROLES)
        params = student.params, teacher.params
        slots = _slots(settings, pair, student.config, teacher.config)
        engine = Engine(slots, min(s.batch_size, len(missing)), width)
        key = key_data(jax.random.key(s.seed))
        requests = (Request(prompts[i // s.n], i, key, payload=examples[i // s.n]) for i in missing)
        for (trajectories, record), finished in engine.run(params, requests):
            new = [
                _line(trajectories, record, b, request, pair, s.answer)
                for b, request in enumerate(finished)
            ]
            lines.add(new)
            done += len(new)
            progress.update(done)
            if done < total:
                check(f"{done} of {total} solutions are in {lines.path}.")
    say(console, f"Wrote {lines.path}")


def _slots(
    settings: ScoreSettings, pair: PairFiles, student: ModelConfig, teacher: ModelConfig
) -> Slots:
    """MOTAB's rollout, in which no step breaches."""
    s = settings
    monitor = motab.MotabSettings(
        gamma_0=0.0,
        delimiter=s.delimiter_text,
        student_temperature=s.temperature,
        teacher_temperature=s.temperature,
        max_step_tokens=s.max_new_tokens,
        max_total=s.max_new_tokens,
        stitch=False,  # no correction, so no text around it
        chunk=s.chunk,
    )
    table = make_step_table(token_bytes(pair.tokenizer, student.vocab_size), s.delimiter_text)
    return motab.make_slots(student, teacher, monitor, table, (), (), pair.eos, pair.vocab_size)


def _header(settings: ScoreSettings, pair: PairFiles) -> dict[str, Any]:
    s = settings
    prompt = {f.name: getattr(s, f.name) for f in dataclasses.fields(PromptFlags)}
    del prompt["dtype"]
    return {
        "kind": "header",
        **{role: fingerprint(pair.directories[role]) for role in ROLES},
        "dtypes": pair.dtypes,
        "prompt": prompt,
        "data": s.data,
        "answer": s.answer,
        "delimiter": s.delimiter_text,
        "temperature": s.temperature,
        "max_new_tokens": s.max_new_tokens,
        "n": s.n,
        "seed": s.seed,
        "paths": {role: getattr(s, role) for role in ROLES},
    }


def kept_example(example: Example) -> dict[str, Any]:
    """What a line keeps of a problem: all but its reference."""
    fields = dataclasses.asdict(example)
    del fields["reference"]
    return {**fields, "choices": list(example.choices)}


def _check_known(
    lines: KeptLines, examples: Sequence[Example], prompts: Sequence[tuple[int, ...]], n: int
) -> None:
    """Raises where a line is of another problem than the data has at its place."""
    for sample_id, line in lines.known.items():
        place = sample_id // n
        if place >= len(examples):
            continue  # of a larger --size
        same = line["prompt_ids"] == list(prompts[place])
        if not same or line["example"] != kept_example(examples[place]):
            raise ValueError(
                f"{lines.path}: sample {sample_id} is of problem {line['example']['id']} with "
                f"another text, answer or prompt than --data has at place {place}. Name another "
                "directory, or the data and template that the file was written with."
            )


def _line(
    trajectories: Any, record: Any, b: int, request: Request, pair: PairFiles, answer: str
) -> dict[str, Any]:
    example: Example = request.payload
    first, tokenizer = len(request.prompt), pair.tokenizer
    length = int(np.sum(trajectories.source_BxT[b] == Source.STUDENT))
    ids = trajectories.tokens_BxT[b, first : first + length].tolist()
    steps = int(record.num_steps_B[b])
    ends = record.step_ends_BxL[b, :steps].tolist()
    starts = [0, *ends[:-1]] if ends else []
    values = record.values_BxL[b, :steps]
    entropies = record.scores.entropy[b, starts]
    if int(record.breach_B[b]) >= 0 or not np.isfinite([values, entropies]).all():
        raise RuntimeError(
            f"The teacher's scores of sample {request.sample_id} ({example.id}) are not finite. "
            "Try --teacher_dtype float32."
        )
    text = decode(tokenizer, ids)
    opened = opens_thinking(tokenizer, request.prompt)
    graded = verdict(f"<think>{text}" if opened else text, example, answer)
    pieces = zip(starts, ends, strict=True)
    return {
        "sample_id": request.sample_id,
        "example": kept_example(example),
        "prompt_ids": list(request.prompt),
        "token_ids": ids,
        "text": text,
        "step_ends": ends,
        "values": values.tolist(),
        "entropies": entropies.tolist(),
        "steps": [decode(tokenizer, ids[start:end]) for start, end in pieces],
        "right": graded.right,
        "final": graded.final,
        "timed_out": graded.timed_out,
        "truncated": not (ids and ids[-1] in pair.eos),
    }
