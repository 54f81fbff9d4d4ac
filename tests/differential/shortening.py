"""Making a script that shows a difference shorter: steps are left out as long as the difference stays.

Owns `shorten`. It is given the script and a question that performs a candidate and tells whether it still differs; it knows no broker.
First halves, then quarters, down to single steps; so a script of 40 steps needs some tens of questions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.differential.script import Script


def shorten(script: Script, still_differs: Callable[[Script], bool], questions_max: int = 150) -> Script:
    """The script with as few steps as could be found within `questions_max` questions. `script` itself is taken to differ."""
    steps = script.steps
    size = max(len(steps) // 2, 1)
    questions = 0
    while True:
        start, shorter = 0, False
        while start < len(steps):
            candidate = steps[:start] + steps[start + size :]
            if questions >= questions_max or not candidate:
                break
            questions += 1
            if still_differs(replace(script, steps=candidate)):
                steps, shorter = candidate, True
            else:
                start += size
        if questions >= questions_max or (size == 1 and not shorter):
            return replace(script, steps=steps)
        size = max(size // 2, 1)
