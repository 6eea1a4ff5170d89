"""Tokenizers read from JSON and lists of merges, and from nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from models.small_files import check_regular, read_object, read_object_if_any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
GENERATION, CONFIG = "generation_config.json", "config.json"
VOCABULARY, MERGES = "vocab.json", "merges.txt"
# The second is how multimodal models write theirs.
TEMPLATE, TEMPLATE_OF_PROCESSOR = "chat_template.jinja", "chat_template.json"
_OBJECTS = (
    TOKENIZER,
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    TEMPLATE_OF_PROCESSOR,
)
_TEXTS = (MERGES, VOCABULARY, CONFIG, TEMPLATE)
# What comes along when a model is copied.
TOKENIZER_FILES = (*_OBJECTS, VOCABULARY, MERGES, TEMPLATE, GENERATION, "tokenizer.model")
# Classes of transformers that know how such a vocabulary cuts a text, and whose models they are.
_CLASSES = {"Qwen2Tokenizer": ("qwen2", "qwen3"), "GPT2Tokenizer": ()}


def read_tokenizer(directory: Path) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a directory.

    `tokenizer.json` is taken as it is, since classes of transformers may rebuild parts of it. Where
    there is none, Qwen's and GPT-2's classes build one from `vocab.json` and `merges.txt`. No other
    vocabulary is read, no code that comes with a model is run, and nothing is fetched.

    Raises:
      FileNotFoundError: there is none.
      ValueError: one of its files is malformed, or no regular file; it is named.
    """
    import transformers

    whole = (directory / TOKENIZER).exists()
    if not whole and not all((directory / name).exists() for name in (VOCABULARY, MERGES)):
        raise FileNotFoundError(
            f"{directory} holds neither {TOKENIZER} nor {VOCABULARY} and {MERGES}; copy the "
            "tokenizer files of the model into it. Other formats are not read: transformers' "
            "AutoTokenizer.from_pretrained(...).save_pretrained(...) converts them."
        )
    templates = (directory / "additional_chat_templates").glob("*.jinja")
    for file in (*(directory / name for name in _TEXTS), *templates):
        if file.exists():
            check_regular(file)
    for name in (*_OBJECTS, *(() if whole else (VOCABULARY,))):
        read_object_if_any(directory / name)
    kind = transformers.PreTrainedTokenizerFast if whole else _class(directory)
    try:
        read = kind.from_pretrained(str(directory), local_files_only=True)
    except Exception as error:  # the Rust library raises no subclass
        text = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{_blamed(directory, whole)} is malformed ({type(error).__name__}: {text})."
        ) from error
    _check_template(read, directory)
    return cast("PreTrainedTokenizerFast", read)


def _class(directory: Path) -> Any:
    """The class that builds a tokenizer from a vocabulary and its merges."""
    import transformers

    for name in (TOKENIZER_CONFIG, CONFIG):
        values = read_object_if_any(directory / name)
        named = str(values.get("tokenizer_class") or "").removesuffix("Fast")
        if named in _CLASSES:
            return getattr(transformers, named)
        for kind, families in _CLASSES.items():
            if values.get("model_type") in families:
                return getattr(transformers, kind)
    raise ValueError(
        f"{directory}: {VOCABULARY} and {MERGES} alone do not say how a text is cut, and neither "
        f"{TOKENIZER_CONFIG} nor {CONFIG} names a tokenizer_class that does: known are "
        f"{', '.join(_CLASSES)}. Copy the model's {TOKENIZER}."
    )


def _blamed(directory: Path, whole: bool) -> str:
    """Which file a tokenizer could not be made of, as far as that can be told."""
    from tokenizers import Tokenizer

    if not whole:
        return f"{directory}: one of {VOCABULARY}, {MERGES} and {TOKENIZER_CONFIG}"
    try:
        Tokenizer.from_file(str(directory / TOKENIZER))
    except Exception:
        return str(directory / TOKENIZER)
    return str(directory / TOKENIZER_CONFIG)


def _check_template(tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """Raises unless the chat template is none, a text or texts by name."""
    file = directory / TEMPLATE_OF_PROCESSOR
    if tokenizer.chat_template is None and file.exists():
        tokenizer.chat_template = read_object(file).get("chat_template")
    else:
        file = directory / TOKENIZER_CONFIG
    found = tokenizer.chat_template
    texts = list(found.values()) if isinstance(found, dict) else [found or ""]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(
            f"{file}: chat_template must be a text, or a list of objects with 'name' and "
            f"'template', not {found!r:.200}."
        )


def ends_of_generation(directory: Path, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """`eos_token_id` of generation_config.json, or else of config.json; [] where none is named.

    Raises:
      ValueError: it is no id of the tokenizer, nor a list of them.
    """
    file = directory / (GENERATION if (directory / GENERATION).exists() else CONFIG)
    found = read_object_if_any(file).get("eos_token_id")
    ids = [] if found is None else found if isinstance(found, list) else [found]
    for i in ids:
        if type(i) is not int or not 0 <= i < len(tokenizer):
            raise ValueError(
                f"{file}: eos_token_id={found!r:.200} must name ids of the tokenizer, "
                f"whole numbers below {len(tokenizer)}."
            )
    return ids
