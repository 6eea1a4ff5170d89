"""Data sets known by name: where the Hugging Face hub has them, and which field is what.

A few lines each. Their files stay where they are: nothing of them is in this project, and a name is
looked up on the hub, or read from a local copy that `path` names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Known:
    """One split of a data set.

    Attributes:
      hub: its id there, `owner/name`.
      split, subset: as the hub calls them; the subset may be empty.
      fields: as in a config; what is not named is looked for.
      where: as in a config's `filter`.
    """

    hub: str
    split: str
    subset: str = ""
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)
    where: str = ""


_THINKING = "<think>\n{deepseek_reasoning}\n</think>\n\n{deepseek_solution}"
_WRONG = "|".join(f"Incorrect Answer {i}" for i in (1, 2, 3))

CATALOGUE: dict[str, Known] = {
    # To train on.
    "limo_v2": Known("GAIR/LIMO-v2", "train", fields={"problem": "question"}),
    "acereason": Known(
        "nvidia/AceReason-1.1-SFT",
        "train",
        fields={"problem": "input", "reference": "output", "source": "source"},
        where="category=math",
    ),
    "openthoughts": Known(
        "open-thoughts/OpenThoughts-114k",
        "train",
        "metadata",
        {"reference": _THINKING, "answer": "ground_truth_solution", "source": "source"},
        "domain=math",
    ),
    "openthoughts3": Known(
        "open-thoughts/OpenThoughts3-1.2M",
        "train",
        fields={
            "problem": "conversations.0.value",
            "reference": "conversations.1.value",
            "source": "source",
        },
        where="domain=math",
    ),
    "gsm8k/train": Known("openai/gsm8k", "train", "main"),
    "math/train": Known("DigitalLearningGmbH/MATH-lighteval", "train", fields={"group": "level"}),
    # To evaluate on.
    "gsm8k/test": Known("openai/gsm8k", "test", "main"),
    "math500": Known(
        "HuggingFaceH4/MATH-500", "test", fields={"id": "unique_id", "group": "level"}
    ),
    "aime24": Known("HuggingFaceH4/aime_2024", "train"),
    "aime25": Known("MathArena/aime_2025", "train"),
    "hmmt25": Known("MathArena/hmmt_feb_2025", "train"),
    "gpqa": Known(
        "Idavidrein/gpqa",
        "train",
        "gpqa_diamond",
        {
            "problem": "Question",
            "answer": "Correct Answer",
            "choices": f"Correct Answer|{_WRONG}",
            "reference": "Explanation",
        },
    ),
}
