"""Teacher contexts of ATESD as text: a problem and its reference, in a template."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from atesd.references import ReferenceTokens, split_reference, tokenize_reference
from models.text.chat import chat_text
from models.text.tokenizer import encode, render_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DEFAULT_TEMPLATE = (
    "{problem}\n\n"
    "--- A worked solution, perhaps shortened ---\n"
    "{reference}\n"
    "--- End of the worked solution ---\n\n"
    "Read the worked solution until you see why it is right. Then put it aside and derive the "
    "answer on your own, step by step and in your own words, as if you had never seen it: do not "
    "mention it. Put your final answer in \\boxed{}."
)

# Stands for the reference while the chat template is applied; private-use characters.
_SENTINEL = "\ue0f0reference\ue0f1"


def check_template(template: str) -> None:
    """Checks that a teacher's message shows the problem, and the reference once.

    Raises:
      ValueError: says what is missing.
    """
    if "{problem}" not in template:
        raise ValueError(f"exposure.template={template!r} does not contain '{{problem}}'.")
    places = template.count("{reference}")
    if places != 1:
        raise ValueError(
            f"exposure.template={template!r} contains '{{reference}}' {places} times; "
            "the reference is shown once."
        )


@dataclasses.dataclass(frozen=True)
class ExposedPrompts:
    """Builds the pieces of a teacher's context from a problem and its worked solution.

    Attributes:
      tokenizer: from `load_tokenizer`.
      max_reasoning: budget of the reasoning, in tokens.
      template: the user's message, with `{reference}` once and `{problem}` at least once.
      unit: `sentence` or `token`: where the reasoning may be cut.
      chat: whether to wrap the message in the tokenizer's chat template, as in `render_prompt`.
      system, thinking: as in `render_prompt`.

    Raises:
      ValueError: a template without its places, or a chat without a chat template.
    """

    tokenizer: PreTrainedTokenizerBase
    max_reasoning: int
    template: str = DEFAULT_TEMPLATE
    unit: str = "sentence"
    chat: bool = True
    system: str = ""
    thinking: str = "default"

    def __post_init__(self):
        check_template(self.template)
        # What can be wrong with the rest shows now.
        render_prompt(
            self.tokenizer, "1", chat=self.chat, system=self.system, thinking=self.thinking
        )

    def __call__(self, problem: str, reference: str, answer: str = "") -> ReferenceTokens:
        """The context's pieces, each tokenized separately.

        Args:
          problem: the text that stands in the place of `{problem}`.
          reference: a worked solution, with or without a boxed answer at its end.
          answer: the final answer, which is boxed where the reference has none.

        Raises:
          ValueError: there is no answer, neither in `reference` nor in `answer`, the tokenizer
            cannot write some of the text, or the chat template does not show the message just once.
        """
        before, after = (
            part.replace("{problem}", problem) for part in self.template.split("{reference}")
        )
        if self.chat:
            before, after = self._chat(before, after)
            head = encode(self.tokenizer, before)
        else:
            head = render_prompt(self.tokenizer, before, chat=False)
        return tokenize_reference(
            split_reference(reference, answer),
            head,
            encode(self.tokenizer, after),
            lambda text: encode_with_ends(self.tokenizer, text),
            self.max_reasoning,
            self.unit,
        )

    def _chat(self, before: str, after: str) -> tuple[str, str]:
        messages = [{"role": "system", "content": self.system}] if self.system else []
        messages.append({"role": "user", "content": before + _SENTINEL + after})
        parts = chat_text(self.tokenizer, messages, self.thinking).split(_SENTINEL)
        if len(parts) != 2:
            raise ValueError(
                f"The chat template shows the message {len(parts) - 1} times instead of once; use "
                "another one, or chat=False."
            )
        return parts[0], parts[1]


def encode_with_ends(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[list[int], list[int]]:
    """Ids of `text` alone and the character offset behind each token.

    Raises:
      ValueError: the tokenizer has no token for some of the text.
    """
    ids = encode(tokenizer, text)
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return ids, [end for _, end in offsets["offset_mapping"]]
