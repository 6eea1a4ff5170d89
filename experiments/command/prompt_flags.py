"""How a command that loads a model renders problems: the flags, and the renderer they ask for."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from models.text.tokenizer import THINKING, Render, load_tokenizer, render_prompt


def add_prompt_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the fields of a config's `prompt`, and `thinking`."""
    add = parser.add_argument
    add("--prompt_format", default="{problem}", help="the user's message, around {problem}")
    add("--no_chat", action="store_true", help="prompt_format is the whole prompt: no template")
    add("--system", default="", help="a system message; none by default")
    add("--chat_template", default="", help="a .jinja file in place of the model's own template")
    add("--thinking", choices=THINKING, default="default", help="the chat template's switch")


def tokenizer_and_renderer(
    options: argparse.Namespace, directory: Path
) -> tuple[PreTrainedTokenizerBase, Render]:
    """The tokenizer of a model, and its renderer.

    Raises:
      FileNotFoundError: there is no tokenizer or no such template.
    """
    tokenizer = load_tokenizer(directory, options.chat_template)
    render = functools.partial(
        render_prompt,
        tokenizer,
        prompt_format=options.prompt_format,
        chat=not options.no_chat,
        system=options.system,
        thinking=options.thinking,
    )
    return tokenizer, render
