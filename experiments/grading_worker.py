"""The process behind `experiments.grading`: one JSON request per line in, `1` or `0` per line out.

Runs as a script, imports nothing of ours, and is ended by the kernel when a request overruns.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import sys

MEMORY_BYTES = 4 * 1024**3


def is_equal(prediction: str, answer: str, anchored: bool) -> bool:
    """math-verify's verdict. `anchored`: only what follows "the answer is" and the like counts."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    targets = (
        LatexExtractionConfig(try_extract_without_anchor=not anchored),
        ExprExtractionConfig(try_extract_without_anchor=not anchored),
    )
    # No time limits of its own: they need this thread's signals and do not stop big integers.
    text = prediction if anchored else f"\\boxed{{{prediction}}}"
    predicted = parse(text, extraction_config=targets, parsing_timeout=None)
    gold = parse(f"\\boxed{{{answer}}}", parsing_timeout=None)
    return bool(verify(gold, predicted, timeout_seconds=None))


def main() -> None:
    # A cluster may send these to every process of a job. This one ends when its input does.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    # Libraries may print: the replies keep the real standard output to themselves.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    is_equal("1", "x", False)  # the slow import, outside of any request's time
    for line in sys.stdin:
        request = json.loads(line)
        # The default action of the alarm ends the process, even inside a single long operation.
        signal.setitimer(signal.ITIMER_REAL, request["seconds"])
        try:
            verdict = is_equal(request["prediction"], request["answer"], request["anchored"])
        except Exception:
            verdict = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        replies.write(f"{int(verdict)}\n")
        replies.flush()


if __name__ == "__main__":
    main()
