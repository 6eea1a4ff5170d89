"""The counter of lines, by hand."""

from __future__ import annotations

from .count_lines import count

SOURCE = '''"""Module,
on two lines."""

import os  # no comment line


class A:
    """One line."""

    text = """no
# docstring"""

    # A comment.
    def f(self):
        """Another."""
        return os
'''


def test_every_line_is_of_one_kind():
    found = count(SOURCE)
    assert found == {"code": 5, "imports": 1, "docstrings": 4, "comments": 1, "blanks": 5}
    assert sum(found.values()) == len(SOURCE.splitlines())
