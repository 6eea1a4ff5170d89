"""The embedded models and tokenizers, and where models are found by name."""

from __future__ import annotations

from pathlib import Path

from models.paths import local_path

__all__ = ["EMBEDDED", "ROLES", "TOKENIZERS", "model_directory", "tokenizer_directory"]

EMBEDDED = Path(__file__).resolve().parent
ROLES = ("teacher", "student", "reader", "tale-teacher", "tale-student")
TOKENIZERS = ("tokenizer", "tale-tokenizer")
_NAMES = ", ".join(f"embedded:{role}" for role in ROLES)


def model_directory(name: str) -> Path:
    """The directory of a model: `embedded:` and one of `ROLES`, or a local path.

    Raises:
      FileNotFoundError: there is no such directory, or no model in it.
      ValueError: no embedded model has that name.

    Example:
      >>> model_directory("embedded:student").name
      'student'
    """
    name = str(name)
    if name.startswith("embedded:"):
        role = name.removeprefix("embedded:")
        if role not in ROLES:
            raise ValueError(f"{name!r}: the embedded models are {_NAMES}.")
        path = EMBEDDED / role
        advice = f"configs/pretrain.py says how the embedded {role} is made."
    else:
        path = local_path(name, "model")
        advice = (
            f"Give one of {_NAMES}, or the directory of a downloaded model, as "
            "huggingface_hub.snapshot_download returns it."
        )
    if not path.is_dir():
        raise FileNotFoundError(f"Model {name!r}: there is no directory {path}. {advice}")
    if not (path / "config.json").is_file():
        raise FileNotFoundError(f"Model {name!r}: {path} holds no config.json. {advice}")
    return path


def tokenizer_directory(name: str) -> Path:
    """The directory of a tokenizer: `embedded:` and one of `TOKENIZERS`, or a local path.

    Raises:
      FileNotFoundError: there is no such directory.
    """
    embedded = name.removeprefix("embedded:")
    path = EMBEDDED / embedded if name == f"embedded:{embedded}" else local_path(name, "tokenizer")
    if name == f"embedded:{embedded}" and embedded not in TOKENIZERS:
        raise FileNotFoundError(
            f"Tokenizer {name!r}: the embedded ones are {', '.join(TOKENIZERS)}."
        )
    if not path.is_dir():
        raise FileNotFoundError(f"Tokenizer {name!r}: there is no directory {path}.")
    return path
