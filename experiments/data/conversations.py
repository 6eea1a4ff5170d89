"""Chat-style records: lists of messages in place of texts."""

from __future__ import annotations

from typing import Any

# Who speaks and what is said, in the two spellings that data sets have.
_SPELLINGS = (("role", "content"), ("from", "value"))
_ASKS = ("user", "human")


def is_conversation(value: Any) -> bool:
    """Whether a value is a list of messages, each with its speaker and its text."""
    return isinstance(value, list) and bool(value) and all(_spelling(m) for m in value)


def only_message(messages: list[dict[str, Any]], name: str) -> Any:
    """The text of a conversation of one message, as a prompt is often written.

    Args:
      name: of the field, for the message.

    Raises:
      ValueError: there are several messages, or the one is not the user's: which of them is meant
        must be said.
    """
    speakers = [str(m[_spelling(m)[0]]) for m in messages]
    if len(messages) == 1 and speakers[0] in _ASKS:
        return messages[0][_spelling(messages[0])[1]]
    asks = [i for i, speaker in enumerate(speakers) if speaker in _ASKS]
    place = asks[-1] if asks else len(messages) - 1
    raise ValueError(
        f"field {name!r} is a conversation of {', '.join(map(repr, speakers[:6]))}. Map the "
        f"message that is meant, such as {name}.{place}.{_spelling(messages[place])[1]}."
    )


def hint(record: Any, field: str) -> str:
    """How to map `field` where a record holds a conversation; empty where it holds none."""
    inside = {"": record} if isinstance(record, list) else record
    for name, value in inside.items():
        if is_conversation(value) and field in ("problem", "reference"):
            asks = [i for i, m in enumerate(value) if m[_spelling(m)[0]] in _ASKS]
            place = asks[-1] if asks and field == "problem" else -1 if field == "reference" else 0
            text = _spelling(value[place])[1]
            return f", here {'.'.join(filter(None, (str(name), str(place), text)))!r}"
    return ""


def _spelling(message: Any) -> tuple[str, ...]:
    if isinstance(message, dict):
        for who, text in _SPELLINGS:
            if who in message and text in message:
                return who, text
    return ()
