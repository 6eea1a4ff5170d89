"""The embedded task's tokenizer: one token per character, saved as any other model's."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, EOS = "<|endoftext|>", "<|im_end|>"
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] + '\\n' }}{% endfor %}"
# Byte-level BPE writes a space as U+0120 and a newline as U+010A.
CHARACTERS = ["Ġ", *map(chr, range(0x21, 0x7F)), "Ċ"]


def build_chain_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE without merges over 95 printable ASCII characters and the newline: 98 ids.

    Any other character becomes the padding token, which is also the unknown one;
    `models.text.tokenizer.encode` refuses it.
    """
    vocab = {token: i for i, token in enumerate([*CHARACTERS, PAD, EOS])}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token=PAD))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in (PAD, EOS)])
    return wrap(backend)


def wrap(backend: Tokenizer) -> PreTrainedTokenizerFast:
    """The tokenizer for transformers, with `PAD`, `EOS` and `CHAT_TEMPLATE`."""
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        unk_token=PAD,
        eos_token=EOS,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def save_chain_tokenizer(directory: str | os.PathLike) -> None:
    """Writes tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    save_tokenizer(build_chain_tokenizer(), directory)


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, directory: str | os.PathLike) -> None:
    """Writes the files of a tokenizer that was built here, for transformers 4 and 5."""
    path = Path(directory)
    path.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(str(path))
    # A name that transformers 4 knows as well; 5 writes the name of its new base class.
    config = path / "tokenizer_config.json"
    fields = json.loads(config.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    config.write_text(json.dumps(fields, indent=2) + "\n")
