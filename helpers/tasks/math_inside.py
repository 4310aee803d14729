"""The process in which math-verify compares answers, for helpers/tasks/grading.py.

A power tower is computed in one step that no clock inside a process can interrupt, and in a worker
thread math-verify has no clock at all; this process is killed instead. Standard input: lines of
JSON [right, answer]; standard output: for each a line of JSON, whether they are equal.
"""

import json
import os
import sys

SECONDS = 5  # of one parsing or comparison, by math-verify's own clock
MEMORY_BYTES = 4 << 30


def equal(right, answer):
    """Whether an answer (a text) equals a reference (LaTeX), as math-verify sees it."""
    from math_verify import parse, verify

    return verify(
        parse(f"${right}$", parsing_timeout=SECONDS),
        parse(answer, parsing_timeout=SECONDS),
        timeout_seconds=SECONDS,
    )


def main():
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    except (ImportError, OSError, ValueError):
        pass  # Windows, or a lower limit is there already
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no reply
    for line in sys.stdin:
        try:
            verdict = bool(equal(*json.loads(line)))
        except MemoryError:
            verdict = False
        print(json.dumps(verdict), file=replies, flush=True)


if __name__ == "__main__":
    main()
