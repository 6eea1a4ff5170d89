"""Dual exposure bias of a model pair, by response position:

python -m experiments.diagnose --student embedded:student --teacher embedded:teacher \
    --data chain/test --out DIR

The diagnostics of MOTAB (arXiv 2605.19433, Figures 1 and 2) as we read them; the paper gives no
formulas. For every problem each model writes `n` samples of its own on the same prompt: S-text is
the student's, T-text the teacher's. All quantities are in nats, under the unfiltered models at
temperature 1, whatever the text was sampled with. Position t counts response tokens from 0.

* Figure 1, `log_probs`: log p_m(y_t | prompt, y_<t) for the tokens y of T-text (off-policy for the
  student) and of S-text (on-policy for it), m = teacher and student: four curves.
* Figure 2, `kl`: exposure bias of m, KL(p_m(. | prompt, y_<t) || p_m(. | prompt, y'_<t)), y the
  text m wrote itself and y' the other model's: the student's, and the teacher's (reversed exposure
  bias). Sample i of one is paired with sample i of the other; t counts where both texts have a
  token. At t = 0 the contexts are the same and the KL is 0. It also counts that two texts have got
  to different places by t; a model against itself (as both --student and --teacher) shows how much.

A point of a curve is a mean over problems of each problem's mean over its tokens in the bin, with a
95 % bootstrap interval over problems. Later bins hold fewer problems: those whose text is that
long. Noise belongs to (seed, writer, problem's index * n + sample): batches do not matter.

With `--window K` also whether a token's loss says that the models part there (TOPD, arXiv 2606.00305):
loss against optimal transport between windows of K tokens, `experiments.diagnose.near_future`.

diagnose.json, strict JSON:

    log_probs     {"teacher_text" | "student_text": {"teacher" | "student": CURVE}}
    kl            {"student" | "teacher": CURVE}
    texts         {"student" | "teacher": {"mean_length": tokens, "truncation_rate": share}}
    near_future   with --window: what `experiments.diagnose.near_future.near_future` returns
    problems, samples, bin, min_problems, seconds
    settings      the command's flags
    commit, dirty, versions, device, device_count

    CURVE         {"overall": POINT, "bins": [POINT with "start" and "end"], "left_out": bins with
                  some but fewer than min_problems problems}; a bin covers start <= t < end
    POINT         {"mean", "low", "high", "problems", "tokens"}: tokens or, for kl, positions
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedTokenizerBase

from distill.roles import Role, role_key
from experiments.command.progress import Progress
from experiments.command.prompt_flags import add_prompt_flags, tokenizer_and_renderer
from experiments.data.batches import pad_rows, prompt_ids
from experiments.data.sources import load_source
from experiments.diagnose.exposure_bias import compare_contexts
from experiments.diagnose.near_future import NearFutureSettings, near_future, near_future_table
from experiments.diagnose.near_future_picture import draw as draw_near_future
from experiments.diagnose.picture import draw
from experiments.diagnose.position_curves import PositionCurve
from experiments.machine.compilation import keep_compiled
from experiments.machine.environment import environment
from experiments.pair.tokenizers import compare_tokenizers
from experiments.tasks.example import Example
from experiments.workdir.workdir import plain, write_atomic
from models import ModelConfig, generate, load_config, load_pretrained
from models.embedded import model_directory
from models.parameters import Params
from models.text.tokenizer import Render, eos_ids, load_tokenizer, render_prompt

RESULTS, PICTURE, NEAR_FUTURE = "diagnose.json", "diagnose.png", "near_future.png"
ROLES = {"student": Role.STUDENT, "teacher": Role.TEACHER}
_OTHER = {"student": "teacher", "teacher": "student"}

_compare = jax.jit(compare_contexts, static_argnames=("config", "vocab_size"))


def diagnose(
    student: tuple[Params, ModelConfig],
    teacher: tuple[Params, ModelConfig],
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    *,
    n: int = 4,
    max_new_tokens: int = 512,
    temperature: float = 0.6,
    top_p: float = 0.95,
    batch_size: int = 64,
    seed: int = 0,
    bin: int = 16,
    min_problems: int = 10,
    vocab_size: int | None = None,
    eos: tuple[int, ...] | None = None,
    render: Render | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Measures the pair's exposure bias; the module's docstring says what that is.

    Args:
      student, teacher: parameters and config of each.
      tokenizer: of both; `compare_tokenizers` says whether there is such a thing.
      examples: the problems.
      n: samples of each model per problem.
      max_new_tokens: longest text, EOS included; longer ones are cut off.
      temperature, top_p: of sampling; temperature 0 is greedy.
      batch_size: pairs of samples per batch.
      seed: of sampling.
      bin: positions per bin.
      min_problems: bins with fewer problems are left out.
      vocab_size: ids from here on do not exist for either model; the ids that tokenizer and models
        share by default.
      eos: ids that end a text; the tokenizer's EOS by default.
      render: problem text to prompt ids; `render_prompt` without options by default.
      on_batch: called with pairs done and pairs in all.

    Returns:
      What diagnose.json holds, without `settings` and the environment.

    Raises:
      ValueError: a setting is out of range, or texts exceed the positions of a model.
    """
    _check(
        len(examples), n=n, max_new_tokens=max_new_tokens, batch_size=batch_size, bin=bin,
        min_problems=min_problems,
    )  # fmt: skip
    begun = time.monotonic()
    pair = {"student": student, "teacher": teacher}
    positions = min(config.max_positions for _, config in pair.values())
    render = render or functools.partial(render_prompt, tokenizer)
    ids = [prompt_ids(example, render, positions) for example in examples]
    prompts_ExP, lengths_E = pad_rows(ids, max(map(len, ids)))
    if prompts_ExP.shape[1] + max_new_tokens > positions:
        raise ValueError(
            f"Prompts of {prompts_ExP.shape[1]} tokens and max_new_tokens={max_new_tokens} exceed "
            f"the {positions} positions of the models. Lower max_new_tokens."
        )
    known = [len(tokenizer), *(config.vocab_size for _, config in pair.values())]
    vocab = min([*known, vocab_size] if vocab_size else known)
    eos = (tokenizer.eos_token_id,) if eos is None else eos
    key = jax.random.key(seed)

    def write(
        role: str, prompts: np.ndarray, lengths: np.ndarray, rows: np.ndarray
    ) -> tuple[jax.Array, jax.Array]:
        params, config = pair[role]
        text = generate(
            params, config, prompts, lengths, role_key(key, ROLES[role], 0), max_new_tokens,
            temperature=temperature, top_p=top_p, eos_ids=eos, row_ids=rows.astype(np.int32),
            vocab_size=vocab,
        )  # fmt: skip
        return text.tokens_BxN, text.lengths_B

    total = len(examples) * n
    batch_size = min(batch_size, total)

    def new_curve() -> PositionCurve:
        return PositionCurve(len(examples), max_new_tokens, bin)

    log_probs = {text: {model: new_curve() for model in ROLES} for text in ROLES}
    kl = {model: new_curve() for model in ROLES}
    lengths_of: dict[str, list[np.ndarray]] = {role: [] for role in ROLES}
    cut_off = dict.fromkeys(ROLES, 0)
    for start in range(0, total, batch_size):
        count = min(batch_size, total - start)
        # The last batch repeats its last pair to stay as wide.
        rows = np.minimum(np.arange(start, start + batch_size), total - 1)
        prompts, lengths = prompts_ExP[rows // n], lengths_E[rows // n]
        texts = {role: write(role, prompts, lengths, rows) for role in ROLES}
        scores = {
            role: _compare(
                *pair[role], prompts, lengths, texts[role][0], texts[_OTHER[role]][0], vocab
            )
            for role in ROLES
        }
        texts, scores = jax.tree.map(lambda x, c=count: x[:c], jax.device_get((texts, scores)))
        problems = rows[:count] // n
        there = {}
        for role, (tokens, length) in texts.items():
            there[role] = np.arange(max_new_tokens) < length[:, None]
            ends = tokens[np.arange(count), length - 1]
            cut_off[role] += int((~np.isin(ends, eos)).sum())
            lengths_of[role].append(length)
        for role, of in scores.items():
            log_probs[role][role].add(problems, of.own_log_probs, there[role])
            other = _OTHER[role]
            log_probs[other][role].add(problems, of.other_log_probs, there[other])
            kl[role].add(problems, of.kl, there[role] & there[other])
        if on_batch:
            on_batch(start + count, total)

    return {
        "log_probs": {
            f"{text}_text": {model: log_probs[text][model].summary(min_problems) for model in ROLES}
            for text in ROLES
        },
        "kl": {model: kl[model].summary(min_problems) for model in ROLES},
        "texts": {
            role: {
                "mean_length": float(np.concatenate(lengths_of[role]).mean()),
                "truncation_rate": cut_off[role] / total,
            }
            for role in ROLES
        },
        "problems": len(examples),
        "samples": n,
        "bin": bin,
        "min_problems": min_problems,
        "seconds": time.monotonic() - begun,
    }


def _check(problems: int, *, min_problems: int, **at_least_one: int) -> None:
    for name, value in at_least_one.items():
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1.")
    if min_problems < 2:
        raise ValueError(f"min_problems={min_problems} must be at least 2, or nothing varies.")
    if problems < min_problems:
        raise ValueError(
            f"There are {problems} problems, fewer than min_problems={min_problems}: every bin "
            "would be left out. Raise size, or lower min_problems."
        )


def overall_table(title: str, results: dict[str, Any]) -> Table:
    """The means over all positions."""
    table = Table("nats per token", "mean", "95 % interval", title=title)

    def row(name: str, curve: dict[str, Any]) -> None:
        point = curve["overall"]
        table.add_row(name, f"{point['mean']:.3f}", f"{point['low']:.3f} to {point['high']:.3f}")

    for text in ROLES:
        for model in ROLES:
            row(f"log p of {model}, {text}'s text", results["log_probs"][f"{text}_text"][model])
    for model in ROLES:
        row(f"KL of {model}, own || other's context", results["kl"][model])
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.diagnose",
        description="Exposure bias of a student and of its teacher, by response position.",
    )
    add = parser.add_argument
    add("--student", required=True, help="embedded:student, :teacher, :reader or a directory")
    add("--teacher", required=True, help="embedded:student, :teacher, :reader or a directory")
    add("--data", required=True, help="chain/test|validation|train|long, or a .jsonl or .json file")
    add("--out", type=Path, required=True, help=f"directory for {RESULTS} and {PICTURE}")
    add("--n", type=int, default=4, help="samples of each model per problem (4)")
    add("--size", type=int, default=0, help="problems at most, from the first; 0 for all")
    add("--max_new_tokens", type=int, default=512, help="longest text (512)")
    add("--temperature", type=float, default=0.6, help="0 is greedy (0.6)")
    add("--top_p", type=float, default=0.95, help="(0.95)")
    add("--batch_size", type=int, default=64, help="pairs of samples per batch (64)")
    add("--seed", type=int, default=0, help="of sampling")
    add("--bin", type=int, default=16, help="token positions per bin (16)")
    add("--min_problems", type=int, default=10, help="bins with fewer are left out (10)")
    add("--window", type=int, default=0, help="tokens of near futures to compare; 0 for none")
    add("--windows_per_text", type=int, default=2, help="windows of each kind, at most (2)")
    add("--dtype", choices=("float32", "bfloat16", "float16"), help="as stored by default")
    add_prompt_flags(parser)
    return parser


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Diagnoses what the command line asks for, and writes numbers and picture."""
    # Whatever can be wrong with cheap things comes before the weights are read.
    near = _near_future_settings(options)
    directories = {role: _directory(role, getattr(options, role)) for role in ROLES}
    examples = list(load_source({"name": options.data, "size": options.size}))
    tokenizer, render = tokenizer_and_renderer(options, directories["student"])
    tokenizers = {"student": tokenizer, "teacher": load_tokenizer(directories["teacher"])}
    shared = compare_tokenizers(tokenizers["teacher"], tokenizer)
    render(examples[0].problem)
    for path in directories.values():
        load_config(path)
    options.out.mkdir(parents=True, exist_ok=True)
    ends = {i for role, path in directories.items() for i in eos_ids(tokenizers[role], path)}
    eos = tuple(sorted(ends))
    pair = {}
    for role, path in directories.items():
        config, params = load_pretrained(path, options.dtype)
        pair[role] = params, config
    with Progress(len(examples) * options.n, label="diagnose", console=console) as progress:
        results = diagnose(
            pair["student"],
            pair["teacher"],
            tokenizer,
            examples,
            n=options.n,
            max_new_tokens=options.max_new_tokens,
            temperature=options.temperature,
            top_p=options.top_p,
            batch_size=options.batch_size,
            seed=options.seed,
            bin=options.bin,
            min_problems=options.min_problems,
            vocab_size=shared,
            eos=eos,
            render=render,
            on_batch=lambda done, _: progress.update(done),
        )
        if near is not None:
            results["near_future"] = near_future(
                pair["student"], pair["teacher"], tokenizer, examples, near, eos=eos,
                vocab_size=shared, render=render,
            )  # fmt: skip
    settings = {k: v for k, v in vars(options).items() if k != "out"}
    results = {**results, "settings": settings, **environment()}
    console.print(overall_table(f"{options.student} and {options.teacher}", results))
    if near is not None:
        console.print(near_future_table(results["near_future"]))
    write_outcome(options.out, results)
    pictures = (PICTURE, NEAR_FUTURE) if near is not None else (PICTURE,)
    console.print(f"Wrote {', '.join(str(options.out / x) for x in (RESULTS, *pictures))}")
    return results


def _near_future_settings(options: argparse.Namespace) -> NearFutureSettings | None:
    """None without windows.

    Raises:
      ValueError: a flag is out of range.
    """
    if options.window == 0:
        return None
    return NearFutureSettings(
        window=options.window,
        per_text=options.windows_per_text,
        n=options.n,
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        batch_size=options.batch_size,
        seed=options.seed,
    )


def _directory(role: str, name: str) -> Path:
    try:
        return model_directory(name)
    except (OSError, ValueError) as error:
        raise ValueError(f"--{role}: {error}") from None


def write_outcome(out: Path, results: dict[str, Any]) -> None:
    """Writes pictures and diagnose.json, each wholly or not at all; numbers last."""
    figures = {PICTURE: draw(results)}
    if "near_future" in results:
        figures[NEAR_FUTURE] = draw_near_future(results["near_future"])
    for name, figure in figures.items():
        picture = io.BytesIO()
        figure.savefig(picture, format="png")
        write_atomic(out / name, picture.getvalue())
    content = json.dumps(plain(results), indent=2, allow_nan=False) + "\n"
    write_atomic(out / RESULTS, content.encode())


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 when it could not be done."""
    options = _parser().parse_args(arguments)
    keep_compiled()
    try:
        run(options, Console())
    except (ImportError, OSError, ValueError) as error:
        print(f"Nothing was diagnosed. {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
