"""How a command that loads a model renders problems."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Annotated

from transformers import PreTrainedTokenizerBase

from experiments.command.flags import Flag
from models.dtypes import DTYPES
from models.text.chat import THINKING
from models.text.tokenizer import Render, load_tokenizer, render_prompt


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptFlags:
    """The fields of a config's `prompt`, `thinking`, and the type that weights are loaded as."""

    dtype: Annotated[str | None, Flag("of the weights; as stored by default", choices=DTYPES)] = (
        None
    )
    prompt_format: Annotated[str, Flag("the user's message, around {problem}")] = "{problem}"
    no_chat: Annotated[bool, Flag("prompt_format is the whole prompt: no template")] = False
    system: Annotated[str, Flag("a system message; none by default")] = ""
    chat_template: Annotated[
        str, Flag("a .jinja file in place of the model's own template", "FILE")
    ] = ""
    thinking: Annotated[str, Flag("the chat template's switch", choices=THINKING)] = "default"

    def tokenizer_and_renderer(self, directory: Path) -> tuple[PreTrainedTokenizerBase, Render]:
        """The tokenizer of a model, and its renderer.

        Raises:
          FileNotFoundError: there is no tokenizer or no such template.
        """
        tokenizer = load_tokenizer(directory, self.chat_template)
        render = functools.partial(
            render_prompt,
            tokenizer,
            prompt_format=self.prompt_format,
            chat=not self.no_chat,
            system=self.system,
            thinking=self.thinking,
        )
        return tokenizer, render
