r"""Unicode and plain-text mathematics as LaTeX: `½`, `√2`, `x²`, `≤`, `sqrt(2)`, `pi`."""

from __future__ import annotations

import re
import unicodedata

_VULGAR = {
    character: unicodedata.normalize("NFKC", character).replace("\u2044", "/")
    for character in "\u00bc\u00bd\u00be" + "".join(map(chr, range(0x2150, 0x215F)))
}
_SUPER = dict(
    zip(
        "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207a\u207b\u207f\u2071",
        "0123456789+-ni",
        strict=True,
    )
)
_SUB = {chr(0x2080 + i): str(i) for i in range(10)} | {"\u208a": "+", "\u208b": "-", "\u2099": "n"}
_GREEK = dict(
    zip(
        "\u03b1\u03b2\u03b3\u03b4\u03b5\u03b6\u03b7\u03b8\u03b9\u03ba\u03bb\u03bc\u03bd\u03be"
        "\u03c0\u03c1\u03c3\u03c4\u03c6\u03c7\u03c8\u03c9\u0394\u03a3\u03a9\u03a0\u00b5\u03d5",
        [
            "alpha",
            "beta",
            "gamma",
            "delta",
            "epsilon",
            "zeta",
            "eta",
            "theta",
            "iota",
            "kappa",
            "lambda",
            "mu",
            "nu",
            "xi",
            "pi",
            "rho",
            "sigma",
            "tau",
            "phi",
            "chi",
            "psi",
            "omega",
            "Delta",
            "Sigma",
            "Omega",
            "Pi",
            "mu",
            "phi",
        ],
        strict=True,
    )
)
_SIGNS = {
    "\u2212": "-",
    "\u2010": "-",
    "\u2011": "-",
    "\u2012": "-",
    "\u2013": "-",
    "\u2014": "-",
    "\u2044": "/",
    "\u2215": "/",
    "\u00f7": "/",
    "\u00d7": r"\cdot ",
    "\u22c5": r"\cdot ",
    "\u00b7": r"\cdot ",
    "\u2217": r"\cdot ",
    "\u2219": r"\cdot ",
    "\u2264": r"\le ",
    "\u2a7d": r"\le ",
    "\u2265": r"\ge ",
    "\u2a7e": r"\ge ",
    "\u2260": r"\ne ",
    "\u00b1": r"\pm ",
    "\u2213": r"\mp ",
    "\u221e": r"\infty ",
    "\u222a": r"\cup ",
    "\u2229": r"\cap ",
    "\u2208": r"\in ",
    "\u2205": r"\emptyset ",
    "\u00b0": r"^{\circ}",
    "\u00ba": r"^{\circ}",
    "\u2103": r"^{\circ}",
    "\u2109": r"^{\circ}",
    "\u2248": r"\approx ",
    "\u2245": r"\approx ",
    "\u2026": r"\ldots ",
    "\u22ef": r"\ldots ",
    "\u27e8": r"\langle ",
    "\u27e9": r"\rangle ",
    "\u211d": r"\mathbb{R}",
    "\u2124": r"\mathbb{Z}",
    "\u2032": "'",
    "\u2019": "'",
    "\u2018": "'",
    "\u201c": '"',
    "\u201d": '"',
    "\u2227": r"\land ",
    "\u2228": r"\lor ",
    "\u2192": r"\to ",
    "\u2223": "|",
    "\u2236": ":",
    "\uff1a": ":",
    "\u00a3": r"\pounds ",
    "\u20ac": r"\euro ",
    "\u00a5": r"\yen ",
    "\u20b9": r"\rupee ",
    "\u00a2": r"\text{ cents}",
    "\ufe6a": "%",
    "\u066a": "%",
    "\u3001": ",",
}
_SPACES = dict.fromkeys("\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009", " ")
_SPACES |= dict.fromkeys("\u200a\u202f\u205f\u3000\t\r\n\f\v", " ")
_NOTHING = dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f\u2061\u2062\u2063")
_TABLE = str.maketrans(
    {
        **_SIGNS,
        **_SPACES,
        **_NOTHING,
        **{c: rf"\{name} " for c, name in _GREEK.items()},
        **{chr(c): chr(c - 0xFEE0) for c in range(0xFF01, 0xFF5F) if c != 0xFF1A},
    }
)
_OVERLINED = re.compile("((?:\\d\u0305)+|(?:\\d\u0304)+)")
_MIXED = re.compile(f"([{''.join(_VULGAR)}])")
_RAISED = re.compile(f"([{''.join(_SUPER)}]+)")
_LOWERED = re.compile(f"([{''.join(_SUB)}]+)")
_RADICAL = re.compile("([\u221a\u221b\u221c])\\s*(?=(\\S))")
_INDEX = {"\u221a": "", "\u221b": "[3]", "\u221c": "[4]"}

# Plain text, as calculators and programs have it.
_PLAIN = [
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"<=|=<"), r"\\le "),
    (re.compile(r">=|=>"), r"\\ge "),
    (re.compile(r"!=|=/=|<>"), r"\\ne "),
    (re.compile(r"\+/?-"), r"\\pm "),
    (re.compile(r"\*"), r"\\cdot "),
    (re.compile(r"(?<![\\A-Za-z])(?:\+?infinity|inf|oo)(?![A-Za-z])"), r"\\infty "),
    (re.compile(r"(?<![\\A-Za-z])sqrt\s*(?=[({\d])"), r"\\sqrt"),
    (re.compile(r"(?<![\\A-Za-z])cbrt\s*(?=[({\d])"), r"\\sqrt[3]"),
    (
        re.compile(
            r"(?<![\\A-Za-z])(arcsin|arccos|arctan|sin|cos|tan|cot|sec|csc|ln|log|exp)"
            r"(?=[\s(\d^_{\\])"
        ),
        r"\\\1",
    ),
    (re.compile(r"(?<![\\A-Za-z])(pi|theta|alpha|beta|gamma)(?![A-Za-z])"), r"\\\1 "),
]


def to_latex(text: str) -> str:
    """A text whose mathematics is in LaTeX's commands and ASCII, with plain spaces."""
    if not text.isascii():
        text = _OVERLINED.sub(lambda m: rf"\overline{{{m[1][::2]}}}", text)
        text = _MIXED.sub(lambda m: _fraction(_VULGAR[m[1]]), text)
        text = _RAISED.sub(lambda m: f"^{{{''.join(_SUPER[c] for c in m[1])}}}", text)
        text = _LOWERED.sub(lambda m: f"_{{{''.join(_SUB[c] for c in m[1])}}}", text)
        text = _RADICAL.sub(lambda m: rf"\sqrt{_INDEX[m[1]]}", text)
        text = text.translate(_TABLE)
        text = "".join(_digit(character) for character in text)
    else:
        text = re.sub(r"[\t\r\n\f\v]", " ", text)
    for pattern, latex in _PLAIN:
        text = pattern.sub(latex, text)
    return text


def _fraction(plain: str) -> str:
    numerator, _, denominator = plain.partition("/")
    return rf"\frac{{{numerator}}}{{{denominator}}}" if denominator else plain


def _digit(character: str) -> str:
    """Digits of other scripts as ours."""
    if character.isascii():
        return character
    value = unicodedata.decimal(character, None)
    return character if value is None else str(value)
