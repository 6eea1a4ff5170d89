"""Chat templates: a conversation as text, by a program that comes with a model."""

from __future__ import annotations

import functools
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from types import FrameType

    from transformers import PreTrainedTokenizerBase

THINKING = ("default", "on", "off")
# What templates call it: Qwen3 and many others; DeepSeek and Granite.
_SWITCHES = ("enable_thinking", "thinking")
# What Jinja calls the code that it makes of a text.
_COMPILED = "<template>"
# What one rendering may run, in lines of the template and in seconds of this thread, and write
# beyond what is said, in characters. Those of released models run some hundred lines, in a
# millisecond.
MAX_LINES, MAX_SECONDS, MAX_CHARACTERS = 200_000, 2.0, 1_000_000
# The largest number that one may name: larger ones are lengths of something that fills the memory.
_MAX_NUMBER = 10**7


def chat_text(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, str]],
    thinking: str = "default",
) -> str:
    """A conversation in the tokenizer's chat template, up to where the assistant's turn begins.

    The text holds all special tokens: `encode` adds none, so that none is doubled. A template is a
    program from elsewhere: transformers runs it in Jinja's sandbox, and here it may run for
    `MAX_LINES` and `MAX_SECONDS`.

    Args:
      messages: `role` and `content` each.
      thinking: "on" or "off" sets the template's `enable_thinking` (some call it `thinking`);
        "default" leaves it to the template.

    Raises:
      ValueError: there is no chat template, or it has no such switch, does not parse, fails or runs
        on, or leaves out what the user or the system says.
    """
    if thinking not in THINKING:
        raise ValueError(f"{thinking=}: choose one of {', '.join(THINKING)}.")
    if not tokenizer.chat_template:
        raise ValueError(
            "The tokenizer has no chat template. Put a chat_template.jinja beside its "
            "tokenizer.json, name one in prompt.template, or turn chat off and write the whole "
            "prompt in the format."
        )
    template = _guarded(tokenizer, tokenizer.get_chat_template)
    names = [] if thinking == "default" else _switches(template)
    switches: dict[str, Any] = dict.fromkeys(names, thinking == "on")
    if thinking != "default" and not names:
        raise ValueError(
            f"{thinking=}, but the chat template reads none of {', '.join(_SWITCHES)}: this "
            "model cannot be told. Use thinking='default'."
        )

    def render() -> Any:
        _check_numbers(template)
        return tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tokenize=False,
            add_generation_prompt=True,
            **switches,
        )

    text = _guarded(tokenizer, render)
    if len(text) > MAX_CHARACTERS + 4 * sum(len(message["content"]) for message in messages):
        raise ValueError(f"{_name(tokenizer)} writes {len(text):,} characters: it is no template.")
    for message in messages:
        # Some templates strip what is said. Thinking of former answers may be left out.
        if message["role"] != "assistant" and message["content"].strip() not in text:
            raise ValueError(
                f"{_name(tokenizer)} leaves out what the {message['role']} says: "
                f"{message['content']!r:.200} is not in {text!r:.200}. Name a template that "
                "holds it in prompt.template, or turn chat off."
            )
    return text


def check_template(tokenizer: PreTrainedTokenizerBase, where: str) -> None:
    """Raises where the tokenizer's chat template does not parse.

    Args:
      where: what the error calls it.

    Raises:
      ValueError: it does not; the line is named.
    """
    import jinja2

    asked = [{"role": "user", "content": "?"}]
    try:
        _check_numbers(tokenizer.get_chat_template())
        _bounded(lambda: tokenizer.apply_chat_template(asked, tokenize=False))
    except jinja2.TemplateSyntaxError as error:
        raise ValueError(f"{where}, line {error.lineno}: {error.message}") from None
    except Exception:  # of this one message; whatever is asked later is looked at again
        return


class _RunsOn(Exception):
    """A template has run for longer than one may."""


@functools.lru_cache(maxsize=64)
def _check_numbers(template: str) -> None:
    """Raises for what a compiler of templates would work out at once, whatever memory it takes."""
    import jinja2

    for line, kind, text in jinja2.Environment().lex(template):
        if kind == "operator" and text == "**":
            raise jinja2.TemplateSyntaxError("powers are not supported", line)
        if kind == "integer" and int(text.replace("_", ""), 0) > _MAX_NUMBER:
            raise jinja2.TemplateSyntaxError(f"{text:.40} is too large a number", line)


def has_thinking_switch(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether there is a chat template that can be told to think, or not to."""
    if not tokenizer.chat_template:
        return False
    return bool(_switches(_guarded(tokenizer, tokenizer.get_chat_template)))


def _switches(template: str) -> list[str]:
    return [name for name in _SWITCHES if re.search(rf"\b{name}\b", template)]


def _guarded(tokenizer: PreTrainedTokenizerBase, render: Callable[[], Any]) -> str:
    """What `render` returns; a template's own errors become ValueErrors that say whose they are."""
    try:
        return cast(str, _bounded(render))
    except _RunsOn as error:
        problem = f"it is still running after {error}"
    except Exception as error:  # whatever a program may raise
        line = getattr(error, "lineno", None)
        at = f"line {line}, " if isinstance(line, int) else ""
        problem = f"{at}{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    raise ValueError(
        f"{_name(tokenizer)} cannot be rendered: {problem}. Name another one in "
        "prompt.template, or turn chat off and write the whole prompt in the format."
    )


def _bounded(render: Callable[[], Any]) -> Any:
    """Runs `render` with a count of the lines that compiled templates run, and of their seconds."""
    lines, end = 0, time.thread_time() + MAX_SECONDS

    def count(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        if frame.f_code.co_filename != _COMPILED:
            return None
        lines += 1
        if lines > MAX_LINES:
            raise _RunsOn(f"{MAX_LINES:,} lines")
        if time.thread_time() > end:
            raise _RunsOn(f"{MAX_SECONDS:.0f} seconds")
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        return render()
    finally:
        sys.settrace(before)


def _name(tokenizer: PreTrainedTokenizerBase) -> str:
    origin = tokenizer.name_or_path
    return f"The chat template of {origin}" if origin else "The chat template"
