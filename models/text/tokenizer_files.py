"""Tokenizers read from JSON, and from nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

TOKENIZER, TOKENIZER_CONFIG, GENERATION = (
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
)


def read_tokenizer(directory: Path) -> PreTrainedTokenizerFast:
    """The tokenizer in `tokenizer.json`, as it is: classes of transformers may rebuild parts of it.

    No other vocabulary is read, no code that comes with a model is run, and nothing is fetched.

    Raises:
      FileNotFoundError: there is none.
      ValueError: one of its files is malformed; it is named.
    """
    if not (directory / TOKENIZER).is_file():
        raise FileNotFoundError(
            f"{directory} holds no {TOKENIZER}; copy the tokenizer files of the model into it. Other "
            "formats are not read: transformers' AutoTokenizer.from_pretrained(...).save_pretrained("
            "...) converts them."
        )
    for name in (TOKENIZER, TOKENIZER_CONFIG):
        if (directory / name).exists():
            read_object(directory / name)
    try:
        read = PreTrainedTokenizerFast.from_pretrained(str(directory), local_files_only=True)
    except Exception as error:  # the Rust library raises no subclass
        text = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{directory}: its tokenizer files are malformed ({type(error).__name__}: {text})."
        ) from error
    return cast(PreTrainedTokenizerFast, read)


def read_object(file: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
      ValueError: it does not.
    """
    try:
        found = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not valid JSON: {error}.") from None
    if not isinstance(found, dict):
        raise ValueError(f"{file} must hold an object, not {type(found).__name__}.")
    return found


def eos_of_generation(directory: Path, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """`eos_token_id` of generation_config.json as a list; empty where nothing names one.

    Raises:
      ValueError: it is no id of the tokenizer.
    """
    file = directory / GENERATION
    found = read_object(file).get("eos_token_id") if file.is_file() else None
    ids = [] if found is None else found if isinstance(found, list) else [found]
    for i in ids:
        if type(i) is not int or not 0 <= i < len(tokenizer):
            raise ValueError(
                f"{file}: eos_token_id={found!r:.200} must name ids of the tokenizer, below "
                f"{len(tokenizer)}."
            )
    return ids
