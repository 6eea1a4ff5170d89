"""Command lines that set fields of a config."""

from __future__ import annotations

import sys

from absl import app


def parse_flags(arguments: list[str]) -> list[str]:
    """What `app.run` wants of its `flags_parser`; a field that is not there is one line, and the end."""
    try:
        return app.parse_flags_with_usage(arguments)
    except (AttributeError, KeyError) as error:
        reason = " ".join(str(error).strip("\"'").split())
        sys.exit(
            f"A --config.FIELD=VALUE flag sets a field that the config does not have: {reason}"
        )
