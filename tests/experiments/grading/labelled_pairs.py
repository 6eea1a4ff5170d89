r"""Pairs of answers with labels by hand, by kind: `given | true`, a line each."""

EQUAL = {
    "marks and fonts": r"""
        30^\circ. | 30^\circ
        \text{October 30} | October 30
        43_5. | 43_5
        \mathbf{5} | 5
        \dfrac 3 8 | \frac38
        4\sqrt(2) | 4\sqrt{2}
        {\rm e} | e
        \!\sqrt{21} | \sqrt{21}
        \begin{pmatrix} 1 & -1 \\ 1 & \phantom -1 \end{pmatrix} | \begin{pmatrix}1&-1\\1&1\end{pmatrix}
    """,
    "units and money": r"""
        30° | 30
        30 º | 30^\circ
        45^\circ C | 45
        98.6 °F | 98.6
        60 km/h | 60
        5 sq. cm | 5 \text{ cm}^2
        12\,\mathrm{m/s} | 12
        1.6\times10^{-19}\text{ C} | 1.6\times 10^{-19}
        €18 | 18
        18 € | 18
        US\$50 | 50
        ¥1,200 | 1200
        £3.50 | 3.5
        1.85\ \text{USD} | 1.85
        7 \text{ distinct integers} | 7
        20 percent | 20\%
        0.2 | 20\%
        20\% | \frac{1}{5}
        5^{th} | 5
        21\text{st} | 21
    """,
    "digits in groups": r"""
        70\,000 | 70000
        70 000 | 70000
        1 234 567 | 1,234,567
        1'000 | 1000
        11,\! 111,\! 111,\! 100 | 11111111100
        \frac{1}{29{,}322{,}216} | \frac{1}{29322216}
        100,200 | 100, 200
    """,
    "unicode": r"""
        −5 | -5
        １２ | 12
        √2 | \sqrt{2}
        2√3 | \sqrt{12}
        ∛2 | \sqrt[3]{2}
        √(x+1) | \sqrt{x+1}
        ½ | 0.5
        3½ | \frac72
        x² + 1 | x^2+1
        π/4 | \frac{\pi}{4}
        2×3 | 6
        ∅ | \varnothing
        (−∞, 2] ∪ [3, ∞) | (-\infty,2]\cup[3,\infty)
        ±2 | 2, -2
        x ≤ 2 | x\leq 2
    """,
    "plain text": r"""
        sqrt(2) | \sqrt2
        (1+sqrt(5))/2 | \frac{1+\sqrt5}{2}
        x**2 | x^2
        2*pi | 2\pi
        x^10 | x^{10}
        x <= 3 | x \le 3
    """,
    "numbers": r"""
        1e5 | 100000
        1.5E3 | 1500
        6.022e23 | 6.022\times 10^{23}
        6.6\times10^{-34} | 6.6\times 10^{-34}
        0.\overline{3} | \frac13
        0.1\overline6 | \frac16
        0.\dot{1}2\dot{3} | \frac{41}{333}
        0.(142857) | \frac17
        0.333... | 1/3
        0.16666\ldots | \frac16
        0.\overline{9} | 1
        1\frac{4}{5} | 1.8
        1 1/2 | \frac32
        -2\frac34 | -2.75
        0.333333 | \frac13
        3.14159265 | \pi
        5.333333 | 5.333333333333333
        2(3) | 6
        2^{2^{2^2}} | 65536
        \mbox{four} | 4
        007 | 7
    """,
    "bases": r"""
        43_{\text{five}} | 43_5
        (43)_5 | 43_5
        101 base 2 | 101_2
        101_{10} | 101
        A5_{11} | \text{A5}_{11}
    """,
    "signs": r"""
        \frac{-1\pm\sqrt{17}}{2} | \frac{-1+\sqrt{17}}{2}, \frac{-1-\sqrt{17}}{2}
        \sqrt{2\pm\sqrt2} | \sqrt{2+\sqrt2}, \sqrt{2-\sqrt2}
        \{1\pm\sqrt{5},-2\} | -2, 1-\sqrt5, 1+\sqrt5
        (1,\pm 2) | (1,2),(1,-2)
        x=\pm 2 | -2, 2
        \pm 1 \pm i | 1+i, 1-i, -1+i, -1-i
        a \mp b | a-b, a+b
    """,
    "lists": r"""
        1331 and 1728 | 1728, 1331
        19, 46, \text{ and } 82 | 19, 46, 82
        x=1 or x=2 | \{1, 2\}
        4; 5 | 5, 4
        \{1,1,2\} | \{1,2\}
        (3,4),(1,2) | (1,2),(3,4)
        1, 2, \ldots, n | 1, 2, \dots, n
        \text{A, B} | B, A
        \begin{cases}x=1\\y=2\end{cases} | x=1, y=2
    """,
    "names": r"""
        x=5 | 5
        5 | K = 5
        f(x)=2x | 2x
        y=2x+3 | 2x+3
        n=1,2,3 | 3,2,1
        (x,y)=(1,2) | (1,2)
        AB=12+12\sqrt{3} | 12+12\sqrt3
        \text{Area} = 12\text{ cm}^2 | 12
        x = 3 + 4 = 7 | 7
        6\cdot 7=42 | 42
        (C) 42 | C
        \textbf{(C)}\ 42 | 42
        f(x)=cx \text{ for any constant } c | f(x)=cx
        0.56 = 56\% | 0.56
    """,
    "sets": r"""
        x\le 2 | (-\infty,2]
        -2<x<3 | (-2,3)
        (-\infty,2] | 2 \ge x
        x < -1 \text{ or } x > 2 | (-\infty,-1)\cup(2,\infty)
        x \ne 0 | (-\infty,0)\cup(0,\infty)
        \mathbb{R}\setminus\{0\} | (-\infty,0)\cup(0,\infty)
        \{x \mid x>2\} | (2,\infty)
        x\in[-2,7] | [-2,7]
        ]0,1[ | (0,1)
        (1,2]\cup[0,1) | [0,1)\cup(1,2]
        x \le \frac{\sqrt2}{2} | (-\infty,\frac{1}{\sqrt2}]
        (-\infty,\infty) | \mathbb{R}
        \text{no solution} | \emptyset
        2x>4 | x>2
        x+y>1 | -x-y<-1
        -80\leq g(x)\leq 82 | [-80,82]
    """,
    "formulas": r"""
        \sqrt{1/n} | \frac{1}{\sqrt n}
        \sqrt{\frac{a}{b}} | \frac{\sqrt a}{\sqrt b}
        \sqrt{5+2\sqrt6} | \sqrt2+\sqrt3
        \sqrt{x^2} | |x|
        \sin 30^\circ | \frac12
        e^{i\pi} | -1
        1+\frac{1}{\mathrm{e}} | 1+e^{-1}
        \frac{n!}{(n-1)!} | n
        \binom{n}{k} | \frac{n!}{k!(n-k)!}
        \sum_{k=1}^{n} k | \frac{n(n+1)}{2}
        (-1)^n | (-1)^{n+2}
        \log_{3}9 | 2
        y=-2x+5 | 2x+y=5
        3x-y+13=0 | 3*x-1*y+13=0
        2x^2+2y^2=8 | x^2+y^2-4=0
        0=x+y | x+y=0
        10^{10^{10}} | 10^{10^{10}}
        \begin{bmatrix}\frac12\\2\end{bmatrix} | \begin{pmatrix}0.5\\2\end{pmatrix}
    """,
    "words and times": r"""
        East | \text{east}
        no | \text{No}
        the ellipse | \text{ellipse}
        6:30 PM | 6\!:\!30 \text{ p.m.}
        3:4 | \frac34
    """,
}
UNEQUAL = {
    "small numbers": r"""
        \frac{1}{2^{98}} | \frac{1}{2^{99}}
        \frac{1}{2006!} | \frac{1}{2004!}
        1e-10 | 1e-11
        0.0000001 | 0.0000002
        0.000001 | 0
        \sin(10^{-30}) | 0
        e^{-100} | 0
        x+10^{-20} | x
    """,
    "rounded numbers": r"""
        1.0000001 | 1
        1.0000001 | 1.0000002
        0.3333 | \frac13
        3.14 | \pi
        \frac{355}{113} | \pi
        0.\overline{3} | 0.3
        99999999.5 | 99999999.4
        0.12345678901234567890 | 0.12345678901234567891
    """,
    "lost terms": r"""
        \frac{1}{3\cdot 2^{2006}} | \frac{2^{2005}+1}{3\cdot 2^{2006}}
        2^{100}+1 | 2^{100}
        10^{100}+\sqrt2 | 10^{100}
        \sqrt{2^{4010}+1} | 2^{2005}
        \pi^{100}+1 | \pi^{100}
        \sqrt2+10^{-50} | \sqrt2
        2^{2005}x+1 | 2^{2005}x
        123456789012345678901234567890 | 123456789012345678901234567891
        1-10^{-30} | 1
    """,
    "bases": r"""
        43_5 | 43_6
        43_5 | 43
        43 | 43_5
        43_5 | 23
        101_2 | 5
    """,
    "dots": r"""
        1, 3, 5, \ldots, 2n-1 | 1, 2, \ldots, n
        1:4:9:\ldots | 1:2:3:\ldots
        1, 2, \ldots, 10 | 1, 2, \ldots, 11
        1 + 2 + \cdots + n | 1 + 2 + \cdots + m
    """,
    "signs": r"""
        2021 | \pm 2021
        \pm 2 | 2
        \frac{-1+\sqrt{17}}{2} | \frac{-1\pm\sqrt{17}}{2}
        1+\frac{1}{\mathrm{e}} | 1-\frac{1}{\mathrm{e}}
        (-1)^n | (-1)^{n+1}
    """,
    "parts and order": r"""
        1728 | 1331 and 1728
        \{1,2\} | \{1,2,3\}
        1,1,2 | 1,2
        n=1,2,3 | n=2,3,4
        (2,1) | (1,2)
        2,1 | (1,2)
        \{1,2\} | (1,2)
        (1,2),(4,3) | (1,2),(3,4)
        1,000 | 1, 0
        19, 46, \text{ and } 82 | 21, 36, and 82
        (A), (B) | A
        BA | AB
        2:3 | 3:2
    """,
    "names": r"""
        x=5 | y=5
        f(x)=2x | g(x)=2x
        f(x)=0 | \forall x>0, f(x)=0
        D=(0,1.5) | D=(0,1)
        (C) 42 | B
        (C) 42 | 41
        x_1 | x_2
        a | A
        F_n = \sum_{k=0}^{n-2} F_k F_{n-k-2} | F_n = \sum_{k=0}^{n-1} F_k F_{n-k-1}
    """,
    "sets": r"""
        [1,2] | (1,2)
        (1,2] | (1,2)
        x < 2 | x \le 2
        x\ge 2 | (-\infty,2]
        -2\le x<3 | (-2,3)
        0 | \emptyset
        (-\infty,0)\cup(1,\infty) | x \ne 0
        x+y>1 | x+y<1
    """,
    "formulas": r"""
        4 | 4\sqrt(2)
        |x| | x
        \sqrt{x^2} | x
        \ln(x^2) | 2\ln x
        2(3) | 5
        5x | 5
        5m | 5
        3ab | 3
        2\pi | 2
        5! | 5
        3x+4y+14=0 | 3x-y+13=0
        x^2+y^2=4 | x^2+y^2=-4
        x^2+1 | x^2+1=0
        n! | (n+1)!
        10^{10^{10}} | 10^{10^{11}}
    """,
    "units and times": r"""
        12\text{ hours} | 12\text{ minutes}
        20\text{ days} | 20\text{ miles}
        12 cm | 12 m
        1:00 | 12:00
        6:30 a.m. | 6:30\text{ p.m.}
        October 31 | \text{October 30}
        7.5 | 75\%
    """,
}


def pairs(table: dict[str, str]) -> list[tuple[str, str]]:
    """(given, true) of every line."""
    lines = [line.strip() for text in table.values() for line in text.strip().splitlines()]
    return [(given, true) for given, _, true in (line.partition(" | ") for line in lines)]
