"""How large the arrays of a compiled program are."""

from __future__ import annotations

import math
import re

_SHAPE = re.compile(r"\b(?:pred|[a-z]+\d+)\[([\d,]*)\]")


def largest_array(compiled) -> int:
    """Numbers in the largest array that the program's text names, whatever its shape."""
    shapes = _SHAPE.findall(compiled.as_text())
    assert shapes, "the text of a compiled program has no shapes"
    return max(math.prod(int(n) for n in shape.split(",") if n) for shape in shapes)
