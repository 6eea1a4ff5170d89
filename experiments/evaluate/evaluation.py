"""How well a model solves problems:

python -m experiments.evaluate --model embedded:student --data chain/test --n 8 [--out DIR]

With --out, what is graded is kept as it comes: an interrupted evaluation goes on when called again.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from transformers import PreTrainedTokenizerBase

from distill.train.sharding import batch_multiple
from experiments.command.progress import Progress
from experiments.command.prompt_flags import add_prompt_flags, tokenizer_and_renderer
from experiments.data.batches import prompt_ids
from experiments.data.catalogue import CATALOGUE
from experiments.data.sources import load_source
from experiments.evaluate.part import Part
from experiments.evaluate.picture import write_picture
from experiments.evaluate.summary import results_table, summarise
from experiments.grading import MODES, verdict
from experiments.machine.compilation import keep_compiled
from experiments.machine.environment import environment
from experiments.machine.exit_codes import RESUMABLE, Interrupted
from experiments.machine.interruption import check, interruptible
from experiments.rollouts.engine import Engine, Request, key_data
from experiments.rollouts.synthesis import fingerprint
from experiments.tasks.example import Example
from experiments.workdir.workdir import plain, write_atomic
from models import ModelConfig, load_pretrained
from models.decoding.generate import make_slots
from models.decoding.sampling import Sampling
from models.decoding.slots import Slots
from models.embedded import model_directory
from models.text.tokenizer import Render, decode, eos_ids, opens_thinking, render_prompt

RESULTS, SAMPLES = "results.json", "samples.jsonl"


def evaluate(
    params: Any,
    config: ModelConfig,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    *,
    n: int,
    max_new_tokens: int,
    temperature: float = 0.6,
    top_p: float = 0.95,
    top_k: int = 0,
    batch_size: int = 64,
    seed: int = 0,
    answer: str = "",
    eos: tuple[int, ...] | None = None,
    render: Render | None = None,
    prompt_width: int | None = None,
    on_batch: Callable[[int, int], None] | None = None,
    part: Part | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Samples n solutions of every problem and grades them.

    A sample's noise belongs to (seed, problem's index * n + sample): company does not matter.

    Args:
      params, config: the model.
      tokenizer: its tokenizer.
      examples: the problems.
      n: samples per problem.
      max_new_tokens: longest completion, EOS included; longer ones are cut off and graded as they
        stand.
      temperature, top_p, top_k: of sampling; temperature 0 is greedy.
      batch_size: samples written at the same time: when one has ended, the next takes its slot.
      seed: of sampling.
      answer: how final answers are found, `boxed` or `flexible`; as each example says by default.
      eos: ids that end a completion; the tokenizer's EOS by default.
      render: problem text to prompt ids; `render_prompt` without options by default.
      prompt_width: width of the padded prompts in tokens; the longest prompt's by default. Fixing it
        saves compilation when different problems are evaluated in turn.
      on_batch: called with samples done and samples in all, whenever some have ended.
      part: samples that were graded already, and where others are kept as they are.

    Returns:
      A summary: `accuracy` (Average@n), its 95 % `interval` over problems, `n` (problems),
      `samples` (per problem), `mean_length` (tokens), `truncation_rate`, `timed_out`
      (comparisons of answers that ran out of time), `pass_at_k` by k (a
      string: 1, 2, 4, ... up to n), `majority` (majority@n), `tokens` in all, `seconds`; where
      there are several, scores by `sources` and by `groups`, and `mean_of_sources`, in which each
      data set counts alike. And a record per sample, in the order of problems.

    Raises:
      ValueError: no problems, n < 1, or prompt and completion exceed the model's positions.
    """
    if not examples:
        raise ValueError("There are no problems to evaluate on.")
    if n < 1 or batch_size < 1 or max_new_tokens < 1:
        raise ValueError(f"{n=}, {batch_size=} and {max_new_tokens=} must be at least 1.")
    start = time.monotonic()
    render = render or functools.partial(render_prompt, tokenizer)
    limit = prompt_width or config.max_positions
    prompts = [tuple(prompt_ids(example, render, limit)) for example in examples]
    width = prompt_width or max(map(len, prompts))
    if width + max_new_tokens > config.max_positions:
        raise ValueError(
            f"Prompts of {width} tokens and max_new_tokens={max_new_tokens} exceed the "
            f"{config.max_positions} positions of the model. Lower max_new_tokens."
        )
    eos = (tokenizer.eos_token_id,) if eos is None else eos
    # Rows of the embedding table beyond the tokenizer are padding.
    sampling = Sampling(temperature, top_p, top_k, min(len(tokenizer), config.vocab_size))
    total = len(examples) * n
    engine = Engine(
        _writing(config, sampling, max_new_tokens, eos),
        min(batch_size, total),
        width,
        batch_multiple(config.mesh),
    )
    key = key_data(jax.random.key(seed))
    records: dict[int, dict[str, Any]] = {} if part is None else dict(part.known)
    places = [i for i in range(total) if i not in records]
    requests = (Request(prompts[i // n], i, key, payload=i) for i in places)
    for written, done in engine.run(params, requests):
        for b, request in enumerate(done):
            example, sample = examples[request.payload // n], request.payload % n
            ids = written.tokens_BxN[b, : written.lengths_B[b]]
            opened = opens_thinking(tokenizer, prompts[request.payload // n])
            records[request.payload] = _record(example, sample, ids, tokenizer, eos, opened, answer)
        if part is not None:
            part.add({request.payload: records[request.payload] for request in done})
        if on_batch:
            on_batch(len(records), total)
    ordered = [records[i] for i in range(total)]
    return summarise(ordered, n, seconds=time.monotonic() - start), ordered


@functools.lru_cache(maxsize=8)
def _writing(
    config: ModelConfig, sampling: Sampling, max_new_tokens: int, eos: tuple[int, ...]
) -> Slots:
    """The same parts for the same settings: their programs are compiled once."""
    return make_slots(config, sampling, max_new_tokens, eos)


def _record(
    example: Example,
    sample: int,
    ids: np.ndarray,
    tokenizer: PreTrainedTokenizerBase,
    eos: tuple[int, ...],
    opened: bool,
    answer: str,
) -> dict[str, Any]:
    text = decode(tokenizer, ids.tolist())
    graded = verdict(f"<think>{text}" if opened else text, example, answer)
    return {
        "id": example.id,
        "sample": sample,
        "problem": example.problem,
        "answer": example.answer,
        "source": example.source,
        "group": example.group,
        "text": text,
        "final": graded.final,
        "right": graded.right,
        "timed_out": graded.timed_out,
        "length": len(ids),
        "truncated": not (len(ids) and int(ids[-1]) in eos),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.evaluate", description="Samples solutions and grades them."
    )
    add = parser.add_argument
    add("--model", required=True, help="embedded:teacher, :student, :reader or a directory")
    add("--data", required=True, nargs="+", help="data sets by name, NAME=PATH for a copy, or path")
    add(
        "--fields",
        nargs="*",
        default=[],
        metavar="FIELD=NAME",
        help="as data.test.fields in a config",
    )
    add("--n", type=int, default=8, help="samples per problem (8)")
    add("--size", type=int, default=0, help="problems of each at most; 0 for all")
    add("--max_new_tokens", type=int, default=512, help="longest completion (512)")
    add("--temperature", type=float, default=0.6, help="0 is greedy (0.6)")
    add("--top_p", type=float, default=0.95, help="(0.95)")
    add("--top_k", type=int, default=0, help="0 is off")
    add("--batch_size", type=int, default=64, help="samples written at the same time (64)")
    add("--seed", type=int, default=0, help="of sampling")
    add(
        "--answer", choices=MODES, default="", help="how final answers are found (as data sets say)"
    )
    add("--dtype", choices=("float32", "bfloat16", "float16"), help="as stored by default")
    add_prompt_flags(parser)
    add("--out", type=Path, help=f"directory for {RESULTS} and {SAMPLES}; resumes")
    return parser


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Evaluates what the command line asks for, shows it and, with `out`, writes it."""
    # Whatever can be wrong with cheap things comes before the weights are read.
    directory = model_directory(options.model)
    examples = [example for name in options.data for example in _load(name, options)]
    tokenizer, render = tokenizer_and_renderer(options, directory)
    first = render(examples[0].problem)
    title = f"{options.model} on {', '.join(options.data)}"
    config, params = load_pretrained(directory, options.dtype)
    total = len(examples) * options.n
    settings = {k: v for k, v in vars(options).items() if k != "out"}
    settings["data"] = ", ".join(options.data)
    part = None
    if options.out:
        made_of = _made_of(settings, directory, examples, first)
        part = Part(options.out / f"{SAMPLES}.part", made_of)
    with Progress(total, label="evaluate", console=console) as progress:
        summary, records = evaluate(
            params,
            config,
            tokenizer,
            examples,
            n=options.n,
            max_new_tokens=options.max_new_tokens,
            temperature=options.temperature,
            top_p=options.top_p,
            top_k=options.top_k,
            batch_size=options.batch_size,
            seed=options.seed,
            answer=options.answer,
            eos=eos_ids(tokenizer, directory),
            render=render,
            on_batch=functools.partial(_on_batch, progress, options.out),
            part=part,
        )
    console.print(results_table(title, summary))
    if options.out:
        write_outcome(options.out, {**summary, "settings": settings, **environment()}, records)
        picture = write_picture(options.out, title, summary, records)
        if part is not None:
            part.done()
        console.print(f"Wrote {RESULTS}, {SAMPLES} and {picture.name} to {options.out}")
    return summary


def _on_batch(progress: Progress, out: Path | None, done: int, total: int) -> None:
    progress.update(done)
    if done < total:
        kept = f"are in {out}" if out else "are lost, for want of --out"
        check(f"{done} of {total} graded samples {kept}.")


def _load(name: str, options: argparse.Namespace) -> list[Example]:
    """The examples of NAME or NAME=PATH."""
    known, equals, path = name.partition("=")
    spec = {"name": known, "path": path} if equals and known in CATALOGUE else {"name": name}
    fields = dict(item.partition("=")[::2] for item in options.fields)
    return list(load_source({**spec, "size": options.size, "fields": fields}, needs_answer=True))


def _made_of(
    settings: Mapping[str, Any],
    directory: Path,
    examples: Sequence[Example],
    first_prompt: list[int],
) -> dict[str, Any]:
    """What samples depend on: settings that do not just change speed, model, problems, template."""
    problems = hashlib.blake2b(repr((first_prompt, examples)).encode(), digest_size=12)
    return {
        **{name: value for name, value in settings.items() if name != "batch_size"},
        "weights": fingerprint(directory),
        "problems": problems.hexdigest(),
    }


def write_outcome(
    out: Path, results: Mapping[str, Any], records: Sequence[Mapping[str, Any]]
) -> None:
    """Writes results.json and samples.jsonl, each wholly or not at all; samples first."""
    out.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(plain(record)) + "\n" for record in records)
    write_atomic(out / SAMPLES, lines.encode())
    write_atomic(out / RESULTS, (json.dumps(plain(results), indent=2) + "\n").encode())


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 when it could not be done."""
    options = _parser().parse_args(arguments)
    keep_compiled()
    try:
        with interruptible():
            run(options, Console())
    except (ImportError, OSError, ValueError) as error:
        print(f"Nothing was evaluated. {error}", file=sys.stderr)
        return 1
    except Interrupted as interrupted:
        print(interrupted, file=sys.stderr)
        return RESUMABLE
    return 0


if __name__ == "__main__":
    sys.exit(main())
