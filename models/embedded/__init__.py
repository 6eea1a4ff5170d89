"""The embedded models and tokenizers, and where models are found by name."""

from __future__ import annotations

from pathlib import Path

from models.paths import local_path

__all__ = ["EMBEDDED", "ROLES", "TOKENIZERS", "model_directory", "tokenizer_directory"]

EMBEDDED = Path(__file__).resolve().parent
ROLES = ("teacher", "student", "reader", "tale-teacher", "tale-student")
TOKENIZERS = ("tokenizer", "tale-tokenizer")


def model_directory(name: str) -> Path:
    """The directory of a model: `embedded:` and one of `ROLES`, or a local path.

    Raises:
      FileNotFoundError: there is no such directory, or no model in it.
      ValueError: no embedded model has that name.

    Example:
      >>> model_directory("embedded:student").name
      'student'
    """
    path = _directory(str(name), "model", ROLES)
    if not (path / "config.json").is_file():
        raise FileNotFoundError(f"Model {str(name)!r}: {path} holds no config.json.")
    return path


def tokenizer_directory(name: str) -> Path:
    """The directory of a tokenizer: `embedded:` and one of `TOKENIZERS`, or a local path.

    Raises:
      FileNotFoundError: there is no such directory.
      ValueError: no embedded tokenizer has that name.
    """
    return _directory(name, "tokenizer", TOKENIZERS)


def _directory(name: str, what: str, embedded: tuple[str, ...]) -> Path:
    own = name.removeprefix("embedded:")
    choices = ", ".join(f"embedded:{choice}" for choice in embedded)
    if name != own and own not in embedded:
        raise ValueError(f"{name!r}: the embedded {what}s are {choices}.")
    path = local_path(name, what) if name == own else EMBEDDED / own
    if not path.is_dir():
        raise FileNotFoundError(
            f"{what.capitalize()} {name!r}: there is no directory {path}. Give one of {choices}, "
            "or the directory of a downloaded one, as huggingface_hub.snapshot_download returns it."
        )
    return path
