"""The tales' tokenizer: byte-level BPE learnt from tales, saved as any other model's."""

from __future__ import annotations

import os

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from experiments.tasks.chain_tokenizer import CHARACTERS, EOS, PAD, save_tokenizer, wrap
from experiments.tasks.tale import TaleSource

VOCAB_SIZE = 256
# Nearly as larger models do: words and digits with the space before them, line ends with the
# punctuation before them.
_PIECES = r" ?\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]+[\n]*|\s+"


def build_tale_tokenizer(examples: int = 20_000) -> PreTrainedTokenizerFast:
    """Learns it from the first `examples` training tales; the same tales make the same one."""
    backend = Tokenizer(models.BPE(unk_token=PAD))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[AddedToken(t, special=True, normalized=False) for t in (PAD, EOS)],
        initial_alphabet=CHARACTERS,
        show_progress=False,
    )
    source = TaleSource("train", size=examples, max_steps=8, style="both", repairs=0.05)
    backend.train_from_iterator((f"{e.problem}\n{e.reference}" for e in source), trainer)
    return wrap(backend)


def save_tale_tokenizer(directory: str | os.PathLike) -> None:
    """Writes tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    save_tokenizer(build_tale_tokenizer(), directory)
