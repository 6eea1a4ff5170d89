"""Two models' directories as a pair: what they share is known before any weights are read."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from experiments.pair.model import Model
from experiments.pair.tokenizers import compare_tokenizers
from models import ModelConfig, load_config, load_pretrained
from models.embedded import model_directory
from models.text.tokenizer import eos_ids, load_tokenizer

ROLES = ("student", "teacher")


@dataclasses.dataclass(frozen=True)
class PairFiles:
    """A student and a teacher on the disk.

    Attributes:
      directories, configs, dtypes: by role; a dtype of None is the stored one.
      tokenizer: of both, from the student's directory.
      vocab_size: ids that both models and the tokenizer know.
      eos: ids that end a text, as either model's files say.
    """

    directories: dict[str, Path]
    configs: dict[str, ModelConfig]
    dtypes: dict[str, str | None]
    tokenizer: PreTrainedTokenizerBase
    vocab_size: int
    eos: tuple[int, ...]

    @property
    def positions(self) -> int:
        """Tokens that a text may have in both models."""
        return min(config.max_positions for config in self.configs.values())

    def load(self, role: str) -> Model:
        """A model that only reads and writes: its layers are a list, held once.

        Raises:
          FileNotFoundError: a file is missing.
          ValueError: a tensor is not what the config asks for.
        """
        directory = self.directories[role]
        config, params = load_pretrained(directory, self.dtypes[role], stacked=False)
        return Model(params, config)


def open_pair(
    names: dict[str, str], dtypes: dict[str, str | None], chat_template: str = ""
) -> PairFiles:
    """Reads configs and tokenizers.

    Args:
      names: by role, a directory or an embedded model.
      dtypes: by role, what weights are loaded as.
      chat_template: as in `load_tokenizer`, for the student.

    Raises:
      FileNotFoundError: there is no such template, or a file is missing.
      ValueError: there is no such model, or the two have other tokenizers.
    """
    directories = {}
    for role in ROLES:
        try:
            directories[role] = model_directory(names[role])
        except (OSError, ValueError) as error:
            raise ValueError(f"--{role}: {error}") from None
    configs = {role: load_config(path) for role, path in directories.items()}
    tokenizers = {
        role: load_tokenizer(path, chat_template if role == "student" else "")
        for role, path in directories.items()
    }
    shared = compare_tokenizers(tokenizers["teacher"], tokenizers["student"])
    vocab = min(shared, *(config.vocab_size for config in configs.values()))
    ends = {i for role, path in directories.items() for i in eos_ids(tokenizers[role], path)}
    return PairFiles(
        directories=directories,
        configs=configs,
        dtypes=dtypes,
        tokenizer=tokenizers["student"],
        vocab_size=vocab,
        eos=tuple(sorted(i for i in ends if i < vocab)),
    )
