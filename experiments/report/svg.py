"""matplotlib's panels as inline SVG whose colours are the page's, in light and in dark."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from experiments.report.colors import BLUE, GREEN, GREY, GRID, ORANGE, RED
from experiments.report.picture import style

# Colours that stand for one of the page's, which is known to its reader's browser alone.
_INK, _SURFACE = "#010203", "#040506"
_THEME = {
    _INK: "var(--ink)",
    _SURFACE: "var(--surface)",
    GREY: "var(--muted)",
    GRID: "var(--grid)",
    BLUE: "var(--blue)",
    ORANGE: "var(--orange)",
    GREEN: "var(--green)",
    RED: "var(--red)",
}
_STYLE: dict[Any, Any] = {
    **{
        name: _INK
        for name in (
            "text.color",
            "axes.labelcolor",
            "axes.edgecolor",
            "axes.titlecolor",
            "xtick.color",
            "ytick.color",
        )
    },
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.facecolor": _SURFACE,
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "axes.titlesize": "medium",
}


def page_color(color: str) -> str:
    """The page's own of one of matplotlib's, in CSS."""
    return _THEME.get(color, color)


def inline_svg(
    draw: Callable[[Axes], None], name: str, size: tuple[float, float] = (4.5, 3.3)
) -> Markup:
    """One panel, drawn by `draw` on its axes.

    Args:
      name: tells the panel's ids from those of the page's others; letters, digits and hyphens.
      size: width and height in inches. The page scales the panel to its column.
    """
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=size)
        figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06))
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        style(axes)
        draw(axes)
        title = axes.get_title()
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return Markup(_of_the_page(file.getvalue(), name, title))


def _of_the_page(svg: str, name: str, title: str) -> str:
    """The `svg` element alone, with unique ids, the page's colours, a name for screen readers."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", svg))
    svg = re.sub(
        r'\bid="([^"]*)"',
        lambda m: f'id="{name}-{m[1]}"' if m[1] in used else "",
        svg,
    )
    svg = re.sub(r"(url\(#|href=\"#)", rf"\g<1>{name}-", svg)
    for color, variable in _THEME.items():
        svg = re.sub(rf"(?<=: ){color}\b", variable, svg, flags=re.IGNORECASE)
    box = re.search(r'viewBox="[\d. ]+"', svg)
    assert box is not None  # matplotlib writes it
    label = f'role="img" aria-label="{html.escape(title)}"'
    head = f'<svg {box[0]} {label} xmlns:xlink="http://www.w3.org/1999/xlink">'
    return head + svg[svg.index(">") + 1 :]
