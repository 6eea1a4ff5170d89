"""Whether two models mean the same by the same token ids, and cut the same text alike."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from transformers import PreTrainedTokenizerBase

from models.text.tokenizer import special_ids

_SHOWN = 5
# What reasoning about mathematics is made of. Two tokenizers with the same tokens may still cut
# text at different places.
_PROBES = (
    "The answer is 1234567.89, or 50%.\n\nHowever,\n\n",
    "So the others $\\frac{12}{345} \\le x_{10}^2$ and \\[\\boxed{\\text{(B)}}\\]  \n\t- it "
    "isn't\n",
    "  if x == 0:\n        return [1, 2]\r\n",
    "Größe naïve 你好，世界 🙂 ½ ﬁ",
)


def compare_tokenizers(teacher: PreTrainedTokenizerBase, student: PreTrainedTokenizerBase) -> int:
    """Checks, by content, that two models mean the same tokens by the same ids.

    One may have more tokens at the end than the other, and embedding tables may be padded. Names,
    paths and chat templates do not matter here.

    Returns:
      How many ids the two share: only ids below it may be sampled from either model.

    Raises:
      ValueError: lists all that differs: ids, special tokens, the end of a text, how text is cut.
    """
    shared, differences = _differences(teacher, student)
    if differences:
        raise ValueError(
            "The tokenizers of teacher and student differ (teacher / student):\n"
            + "".join(f"  * {line}\n" for line in differences)
            + "Token-level distillation needs a pair that shares its tokens; choose both models "
            "from one family."
        )
    return shared


def _differences(
    teacher: PreTrainedTokenizerBase, student: PreTrainedTokenizerBase
) -> tuple[int, list[str]]:
    a, b = ({i: t for t, i in tokenizer.get_vocab().items()} for tokenizer in (teacher, student))
    shared = min(max(a), max(b)) + 1
    found = []
    ids = [i for i in range(shared) if a.get(i) != b.get(i)]
    if ids:
        shown = _some(f"{i}: {a.get(i)!r} / {b.get(i)!r}" for i in ids)
        found.append(f"{len(ids):,} of {shared:,} ids stand for different tokens: {shown}")
    else:
        special = [{i for i in special_ids(t) if i < shared} for t in (teacher, student)]
        for only, name in (
            (special[0] - special[1], "teacher"),
            (special[1] - special[0], "student"),
        ):
            if only:
                shown = _some(f"{i}: {a[i]!r}" for i in sorted(only))
                found.append(
                    f"only the {name} treats these tokens as special: {shown}. Make the two "
                    "tokenizer_config.json files agree"
                )
        found += _cut_differently(teacher, student, shared)
    if teacher.eos_token != student.eos_token:
        found.append(
            f"a text ends with {teacher.eos_token!r} / {student.eos_token!r}. Set the same "
            "eos_token in both tokenizer_config.json files, or choose both models with, or both "
            "without, chat training"
        )
    return shared, found


def _cut_differently(
    teacher: PreTrainedTokenizerBase, student: PreTrainedTokenizerBase, shared: int
) -> list[str]:
    if _cutting(teacher) == _cutting(student):
        return []
    for text in _PROBES:
        one, other = (t.encode(text, add_special_tokens=False) for t in (teacher, student))
        if one != other and max(*one, *other) < shared:
            at = next(
                i for i, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]
            )
            shown = " / ".join(
                repr(t.convert_ids_to_tokens(ids[at : at + 3]))
                for t, ids in ((teacher, one), (student, other))
            )
            return [f"the same text is cut into different tokens: {text[:30]!r} has {shown}"]
    return []


def _cutting(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What decides where text is cut, besides the tokens themselves."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    return {
        **{name: backend.get(name) for name in ("normalizer", "pre_tokenizer")},
        "merges": backend["model"].get("merges"),
        "kind": backend["model"].get("type"),
    }


def _some(items: Iterable[str]) -> str:
    items = list(items)
    rest = f" and {len(items) - _SHOWN:,} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + rest
