"""Tokenizers of Hugging Face directories: bytes of tokens, prompts, end-of-sequence ids."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from models.paths import local_path
from models.small_files import read_small
from models.text.chat import chat_text, check_template
from models.text.tokenizer_files import (
    GENERATION,
    TOKENIZER_CONFIG,
    ends_of_generation,
    read_tokenizer,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

# A problem as prompt tokens.
Render = Callable[[str], list[int]]
_BYTE_FALLBACK = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def load_tokenizer(directory: str | os.PathLike, template: str = "") -> PreTrainedTokenizerFast:
    """The fast tokenizer of a local Hugging Face directory. Never goes to the network.

    Args:
      template: whose chat template to use in place of the directory's: as in `read_template`; empty
        for its own.

    Raises:
      FileNotFoundError: no such directory or template, or no tokenizer in it.
      ValueError: a file of it is malformed, or the template does not parse.
    """
    path = local_path(directory, "tokenizer")
    if not path.is_dir():
        raise FileNotFoundError(f"There is no directory {path} to load a tokenizer from.")
    tokenizer = read_tokenizer(path)
    if template:
        tokenizer.chat_template = read_template(template)
        check_template(tokenizer, f"Chat template {template!r}")
    return tokenizer


def read_template(name: str | os.PathLike) -> str:
    """The text of a chat template: of a .jinja file, or of a model's directory.

    Raises:
      FileNotFoundError: there is neither.
      ValueError: it is empty, no text, or no regular file; or the directory's tokenizer has none.
    """
    file = local_path(name, "prompt.template")
    if file.is_dir():
        template = read_tokenizer(file).chat_template
        if not isinstance(template, str):
            raise ValueError(f"Chat template {str(name)!r}: this directory's tokenizer has none.")
        return template
    if not file.exists():
        raise FileNotFoundError(f"Chat template {str(name)!r}: there is no such file.")
    try:
        text = read_small(file).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"Chat template {file} is not UTF-8 text: {error}.") from None
    if not text.strip():
        raise ValueError(f"Chat template {file} is empty.")
    return text


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of `text` alone, no special token added.

    Raises:
      ValueError: the tokenizer has no token for some of the text.

    Example:
      >>> from models.embedded import model_directory
      >>> tokenizer = load_tokenizer(model_directory("embedded:student"))
      >>> decode(tokenizer, encode(tokenizer, "b=3+8=1."))
      'b=3+8=1.'
    """
    ids = tokenizer.encode(text, add_special_tokens=False)
    unknown = tokenizer.unk_token_id
    # A text may spell the unknown token out: some families use one token for several purposes.
    if unknown is not None and ids.count(unknown) > text.count(str(tokenizer.unk_token)):
        foreign = sorted(
            {c for c in text if unknown in tokenizer.encode(c, add_special_tokens=False)}
        )
        raise ValueError(
            f"The tokenizer cannot write {foreign} in {text[:80]!r}; "
            "use a tokenizer that covers this text, or leave the text out."
        )
    return ids


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of `ids` without special tokens and without any tidying of spaces."""
    text = tokenizer.decode(
        [int(i) for i in ids], skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return cast(str, text)


def token_bytes(tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> list[bytes]:
    """The bytes that every id below `vocab_size` stands for.

    Joined over a sequence they are the UTF-8 of its decoded text, except that a sentencepiece
    decoder drops the one space it puts before the text. Special tokens and ids beyond the
    tokenizer (a padded embedding table) stand for no bytes.

    Raises:
      ValueError: the tokenizer is neither byte-level nor sentencepiece-like, or has ids beyond
        `vocab_size`.

    Example:
      >>> from models.embedded import model_directory
      >>> tokenizer = load_tokenizer(model_directory("embedded:student"))
      >>> token_bytes(tokenizer, len(tokenizer))[encode(tokenizer, "=")[0]]
      b'='
    """
    tokens = tokenizer.get_vocab()
    if max(tokens.values()) >= vocab_size:
        raise ValueError(
            f"The tokenizer has ids up to {max(tokens.values())}, the model's vocab_size is "
            f"{vocab_size}: they do not belong together."
        )
    to_bytes = _token_decoder(tokenizer)
    added = tokenizer.added_tokens_decoder
    special = special_ids(tokenizer)
    table = [b""] * vocab_size
    for token, index in tokens.items():
        if index not in special:
            table[index] = token.encode() if index in added else to_bytes(token)
    return table


def _token_decoder(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], bytes]:
    """From a token, as the vocabulary spells it, to the bytes that it stands for."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    kinds = _kinds(json.loads(tokenizer.backend_tokenizer.to_str()).get("decoder"))
    if not kinds & {"ByteLevel", "Metaspace", "ByteFallback"}:
        raise ValueError(
            f"The tokenizer's decoder is {sorted(kinds) or 'absent'}; only byte-level BPE and "
            "sentencepiece-like tokenizers are supported."
        )
    table = {character: byte for byte, character in bytes_to_unicode().items()}

    def to_bytes(token: str) -> bytes:
        if "ByteLevel" in kinds:
            return bytes(table[c] for c in token) if set(token) <= table.keys() else token.encode()
        fallback = _BYTE_FALLBACK.fullmatch(token) if "ByteFallback" in kinds else None
        return bytes.fromhex(fallback[1]) if fallback else token.replace("▁", " ").encode()

    return to_bytes


def _kinds(decoder: dict[str, Any] | None) -> set[str]:
    if not decoder:
        return set()
    if decoder["type"] == "Sequence":
        return set().union(*(_kinds(part) for part in decoder["decoders"]))
    return {decoder["type"]}


def special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids that `decode` leaves out."""
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)


def render_prompt(
    tokenizer: PreTrainedTokenizerBase,
    problem: str,
    *,
    prompt_format: str = "{problem}",
    chat: bool = True,
    system: str = "",
    thinking: str = "default",
) -> list[int]:
    """Prompt ids of a problem: the one renderer of synthesis, training and evaluation.

    Args:
      tokenizer: from `load_tokenizer`.
      problem: the problem's text.
      prompt_format: the user's message, with `{problem}` where the problem goes; instructions
        (`... put the final answer in \\boxed{}`) go here.
      chat: whether to wrap the message in the tokenizer's chat template. Without, the message is
        the whole prompt, after the tokens that the tokenizer puts before any text.
      system: a system message before the user's; none if empty.
      thinking: as in `chat_text`.

    Raises:
      ValueError: there is no chat template or no such switch in it, or `prompt_format` has no place
        for the problem.

    Example:
      >>> from models.embedded import model_directory
      >>> tokenizer = load_tokenizer(model_directory("embedded:student"))
      >>> len(render_prompt(tokenizer, "a=3,b=+8?"))
      10
    """
    if "{problem}" not in prompt_format:
        raise ValueError(f"prompt_format={prompt_format!r} does not contain '{{problem}}'.")
    message = prompt_format.replace("{problem}", problem)
    if chat:
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": message})
        # The template has written the special tokens already.
        return encode(tokenizer, chat_text(tokenizer, messages, thinking))
    if system or thinking != "default":
        raise ValueError(
            f"{system=} and {thinking=} need a chat template, and chat is off. Write the whole "
            "prompt in prompt_format."
        )
    ids = encode(tokenizer, message)
    before = tokenizer.encode("", add_special_tokens=True)
    bos = [i for i in before if i == tokenizer.bos_token_id]
    return ids if ids[: len(bos)] == bos else bos + ids


def opens_thinking(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int]) -> bool:
    """Whether a prompt's template has written `<think>` already, which the response then lacks."""
    return cast(str, tokenizer.decode(list(prompt))).rstrip().endswith("<think>")


def encode_response(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], response: str
) -> list[int]:
    """Ids of a text as the response to a prompt, whose end stays where it is.

    A `<think>` with which both the prompt ends and the response begins is written once.

    Raises:
      ValueError: the response thinks, and the prompt has closed an empty thinking; or as `encode`.
    """
    thinking = response.lstrip()
    if thinking.startswith("<think>"):
        before = cast(str, tokenizer.decode(list(prompt)))
        if opens_thinking(tokenizer, prompt):
            response = thinking.removeprefix("<think>")
            response = response.removeprefix(before[len(before.rstrip()) :])
        elif before.rstrip().endswith("</think>"):
            raise ValueError(
                "The prompt ends in a closed </think>, and the reference begins with <think>: set "
                "student.thinking='on', or take a reference without its thinking."
            )
    return encode(tokenizer, response)


def eos_ids(tokenizer: PreTrainedTokenizerBase, model_dir: str | os.PathLike) -> tuple[int, ...]:
    """Ids that end a text: the tokenizer's, which SFT teaches, and then the generation config's.

    The generation config is `eos_token_id` of generation_config.json, or of config.json where there
    is no such file, as in transformers and vLLM.

    Raises:
      ValueError: neither names one, or a file names what is no id of the tokenizer.

    Example:
      >>> from models.embedded import model_directory
      >>> directory = model_directory("embedded:student")
      >>> tokenizer = load_tokenizer(directory)
      >>> tokenizer.eos_token_id in eos_ids(tokenizer, directory)
      True
    """
    own = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    ids = dict.fromkeys([*own, *ends_of_generation(Path(model_dir), tokenizer)])
    if not ids:
        raise ValueError(
            f"No end-of-sequence token: set eos_token_id in {Path(model_dir) / GENERATION} or "
            f"eos_token in {TOKENIZER_CONFIG}."
        )
    return tuple(ids)
