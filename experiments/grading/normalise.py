r"""One form for the many ways to write an answer, applied to true answers and to given ones alike.

Spaces, sizes, fonts, delimiters, degree signs, currencies and the shapes of fractions go; what is
left is LaTeX that `experiments.grading.structure` takes apart. Nothing is evaluated here.
"""

from __future__ import annotations

import functools
import re

from experiments.grading.symbols import to_latex

_FONTS = re.compile(
    r"\\(?:mathrm|mathbf|mathit|mathsf|mathtt|mathcal|mathnormal|boldsymbol|bm|textbf|textit|textrm"
    r"|textsf|underline|texttt|textnormal|textup|emph|mbox"
    r"|hbox|operatorname\*?|rm|bf|text)(?![A-Za-z])"
)
_SIZES = re.compile(
    r"\\(?:left|right|middle|[bB]igg?[lmr]?)(?![A-Za-z])\s*\.?|\\(?:displaystyle|textstyle"
    r"|scriptstyle|limits|nolimits)(?![A-Za-z])|\\[hv]?phantom\s*(?:\{[^{}]*\}|-|\d)"
    r"|\\[hv]space\*?\s*\{[^{}]*\}|\\(?:label|tag)\s*\{[^{}]*\}"
)
_SPACE = re.compile(r"\s+")
_SPACES = re.compile(
    r"(?<!\\)\\[,;:> ]|~|\\q?quad(?![A-Za-z])|\\(?:thin|med|thick)space(?![A-Za-z])"
)
_SYNONYMS = [
    (re.compile(rf"\\{old}(?![A-Za-z])\s*"), new)
    for old, new in (
        ("[dtc]frac", r"\\frac"),
        ("leqslant|\\\\leqq|\\\\leq", r"\\le "),
        ("geqslant|\\\\geqq|\\\\geq", r"\\ge "),
        ("neq", r"\\ne "),
        ("times", r"\\cdot "),
        ("ast", r"\\cdot "),
        ("div", "/"),
        ("lbrace", r"\\{"),
        ("rbrace", r"\\}"),
        ("lbrack", "["),
        ("rbrack", "]"),
        ("lparen", "("),
        ("rparen", ")"),
        ("[lr]vert|\\\\vert|\\\\mid", "|"),
        ("varnothing", r"\\emptyset "),
        ("bigcup", r"\\cup "),
        ("dots[bcmio]?|\\\\cdots|\\\\hdots", r"\\ldots "),
        ("lt", "<"),
        ("gt", ">"),
        ("colon", ":"),
        ("plusmn", r"\\pm "),
        ("surd", r"\\sqrt"),
        ("Reals|\\\\R", r"\\mathbb{R}"),
        ("lg", r"\\log_{10}"),
        ("degrees?", r"^{\\circ}"),
        ("textdegree", r"^{\\circ}"),
        ("vee", r"\\lor "),
        ("wedge", r"\\land "),
        ("simeq|\\\\cong|\\\\thickapprox", r"\\approx "),
        ("textonehalf", r"\\frac{1}{2}"),
        ("bar(?=\\s*\\{?\\d)", r"\\overline"),
        ("percent", r"\\%"),
        ("infin", r"\\infty "),
    )
]
_CURRENCY = re.compile(
    r"\\(?:\$|euro|pounds|yen|rupee|texteuro|textsterling|textdollar)(?![A-Za-z])\s*|\$"
    r"|(?<![A-Za-z])(?:US|USD|EUR|GBP|Rs)\.?\s*(?=\\?\$|\d)"
)
_DEGREES = re.compile(r"\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))(?:\s*[CF](?![A-Za-z]))?")
_TRIGONOMETRIC = re.compile(r"\\(?:arc)?(?:sin|cos|tan|cot|sec|csc)")
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
# Digits of a base: \text{A5}_{11}. And points: \overline{AB}, \triangle ABC.
_DIGITS = re.compile(r"\\text\s*\{\s*(-?[0-9A-Z]+)\s*\}(?=\s*_)")
_POINTS = re.compile(
    r"\\(?:overline|overrightarrow|vec)\s*\{([A-Z]{2})\}|\\(?:angle|triangle)(?![A-Za-z])\s*"
)
# What is said about an answer behind it: f(x) = cx for any c.
_QUALIFIED = re.compile(
    r"(?<=\S)\s*,?\s*(?:\\text\s*\{)?\s*\b(?:for (?:any|all|every|some|each)|where|such that)\b.*$"
    r"|(?<=\S)\s*[,;]?\s*\(?"
    r"\s*(?:\\text\s*\{[^{}]*\})?\s*[a-z]\s*\\in\s*\\mathbb\s*\{?[ZNQ]\}?\s*\)?$"
)
# \mathrm{e}, but not the metres of 5\mathrm{m}.
_UPRIGHT = re.compile(r"\\text\s*(?:\{\s*([a-zA-Z])\s*\}|([a-zA-Z])(?![A-Za-z]))")
_AND = re.compile(
    r",?\s*(?:\\text\s*\{\s*,?\s*and\s*,?\s*\}|\\&|(?<![A-Za-z\\])and(?![A-Za-z]))\s*,?"
)
_OR = re.compile(
    r",?\s*(?:\\text\s*\{\s*,?\s*or\s*,?\s*\}|\\lor\b|(?<![A-Za-z\\])or(?![A-Za-z]))\s*,?"
)
_FRACTION = re.compile(r"\\frac\s*([^\s{}\\]|\\[A-Za-z]+|\{[^{}]*\})\s*([^\s{}\\]|\\[A-Za-z]+)")
_FRACTION_HALF = re.compile(r"\\frac\s*([^\s{}\\]|\\[A-Za-z]+)(?=\s*\{)")
_OVERLINE = re.compile(r"\\overline\s*(\d)")
_ROOT = re.compile(r"\\sqrt\s*(\[[^\[\]]*\])?\s*(\d+|[A-Za-z]|\\[A-Za-z]+)")
_SCRIPT = re.compile(r"([\^_])\s*(-?\d+|[A-Za-z])")
_CASES = re.compile(r"\\begin\s*\{(cases|aligned?|gathered|split)\}(.*)\\end\s*\{\1\}", re.DOTALL)
_WRAPPERS = (("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"), ("__", "__"), ("`", "`"), ('"', '"'))
_TRAILING = re.compile(r"(?:[\s,;:.?]|(?<!\\)\\[,;: ]|\\\\)+$")
_CONTINUES = re.compile(r"(?:\\ldots|\\dots|\.\.\.)[\s.]*$")
_ORDINAL = re.compile(r"(?<=\d)\s*\^?\s*\{?\s*\\?(?:text)?\s*\{?\s*(?:st|nd|rd|th)\s*\}?\s*\}?$")
# Separators of thousands that can be nothing else.
_THOUSANDS = re.compile(
    r"(?<=\d)(?:\s*\{\s*,\s*\}\s*|,?\s*\\!\s*,?\s*|\\[,;: ]\s*|~|'|_)(?=\d{3}(?!\d))"
)
_SPACED = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?![\d])")
_COMMAS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?!\d)(?!,\d)")


@functools.lru_cache(maxsize=20_000)
def normalise(answer: str) -> str:
    """The one form of an answer. Idempotent on what it returns, and never empty for what is not."""
    text = _SPACE.sub(" ", _unwrapped(answer))
    text = _THOUSANDS.sub("", text)
    text = _unwrapped(_SPACE.sub(" ", to_latex(text)))
    text = _THOUSANDS.sub("", text).replace("\\!", "")
    text = _SIZES.sub("", text)
    text = _SPACE.sub(" ", _SPACES.sub(" ", text))
    for pattern, new in _SYNONYMS:
        text = pattern.sub(new, text)
    text = _CASES.sub(lambda m: m[2].replace("&", "").replace("\\\\", ", "), text)
    text = _FONTS.sub(r"\\text", text)
    text = re.sub(r"\{\\text\s+([^{}]*)\}", r"\\text{\1}", text)  # {\rm e}
    text = _UPRIGHT.sub(_upright, text)
    text = _POINTS.sub(r"\1", _DIGITS.sub(r"\1", text))
    text = _CURRENCY.sub("", _QUALIFIED.sub("", text))
    if not _TRIGONOMETRIC.search(text):
        text = _DEGREES.sub("", text)
    text = _AND.sub(", ", _OR.sub(r" \\lor ", text))
    text = _roots(_OVERLINE.sub(r"\\overline{\1}", text))
    for _ in range(4):  # a quotient of quotients
        again = _FRACTION.sub(_braced, _FRACTION_HALF.sub(r"\\frac{\1}", text))
        if again == text:
            break
        text = again
    text = _SCRIPT.sub(r"\1{\2}", text)
    text = _SPACED.sub(lambda m: m[0].replace(" ", ""), text)
    text = _unwrapped(re.sub(r"\s+", " ", text))
    return _ORDINAL.sub("", text) or answer.strip()


def without_commas(normal: str) -> str:
    """The other reading of a normalised answer: `1,234` as a number and no list.

    Inside of brackets commas separate.
    """
    if normal[:1] in "([" or normal.startswith("\\{"):
        return normal
    return _COMMAS.sub(lambda m: m[0].replace(",", ""), normal)


def _unwrapped(text: str) -> str:
    """Without the delimiters, markup, boxes and punctuation around it."""
    while True:
        before = text
        text = text.strip()
        if not _CONTINUES.search(text):
            text = _TRAILING.sub("", text)
        text = re.sub(r"^[\s,;:]+", "", text)
        for start, end in _WRAPPERS:
            inside = text[len(start) : -len(end)]
            whole = text.startswith(start) and text.endswith(end) and bool(inside)
            if whole and start not in inside and end not in inside:
                text = inside
        if len(text) > 2 and text[0] == text[-1] == "$" and "$" not in text.strip("$"):
            text = text.strip("$")
        for command in (
            "\\boxed",
            "\\fbox",
            "\\text",
            "\\mathrm",
            "\\textbf",
            "\\mbox",
            "\\mathbf",
            "",
        ):
            argument = _whole_argument(text, command)
            if argument is not None and argument.strip():
                text = argument
        if text == before:
            return text


def _whole_argument(text: str, command: str) -> str | None:
    """The argument of a command that is all of the text; None otherwise."""
    if not text.startswith(command):
        return None
    rest = text[len(command) :].lstrip()
    if not rest.startswith("{") or not rest.endswith("}"):
        return None
    depth = 0
    for i, character in enumerate(rest):
        escaped = i > 0 and rest[i - 1] == "\\"
        if character == "{" and not escaped:
            depth += 1
        elif character == "}" and not escaped:
            depth -= 1
            if not depth:
                return rest[1:i] if i == len(rest) - 1 else None
    return None


def _upright(match: re.Match[str]) -> str:
    letter = match[1] or match[2]
    before = match.string[: match.start()].rstrip()[-1:]
    if letter in "mshgLlNJWVAKCF" and (before.isdigit() or before in ("}", "/", ")")):
        return rf"\text{{{letter}}}"
    return letter


def _braced(match: re.Match[str]) -> str:
    numerator, denominator = match[1], match[2]
    if not numerator.startswith("{"):
        numerator = f"{{{numerator}}}"
    return rf"\frac{numerator}{{{denominator}}}"


def _roots(text: str) -> str:
    r"""`\sqrt2`, `\sqrt(2)` and `\sqrt x` as `\sqrt{2}` and so on."""
    text = _ROOT.sub(lambda m: rf"\sqrt{m[1] or ''}{{{m[2]}}}", text)
    place = 0
    while (found := re.compile(r"\\sqrt(\[[^\[\]]*\])?\s*\(").search(text, place)) is not None:
        depth, start = 1, found.end()
        place = start
        for i in range(start, len(text)):
            depth += (text[i] == "(") - (text[i] == ")")
            if not depth:
                text = f"{text[: start - 1]}{{{text[start:i]}}}{text[i + 1 :]}"
                break
    return text
