"""What the commands exit with, beside 0."""

from __future__ import annotations

FAILED = 1
WRONG_USE = 2
# It was interrupted and can be called again: EX_TEMPFAIL of sysexits.h. A second signal gives 128 +
# its number instead, as in a shell.
RESUMABLE = 75
STOPPED = 130
# Whoever read the output has gone, as `head` does: 128 + SIGPIPE, as in a shell.
UNREAD = 141


class Interrupted(BaseException):
    """The work was asked to end, and what there is of it is on disk. No `Exception`: no failure."""
