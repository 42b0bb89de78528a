"""Two judges with weights: a built-in one, and a function of your own that reads a column of the data.

Run it with ``python examples/two_judges.py``. Each judge is logged by itself (``component/correct``, ``component/brief``), and the
advantage normalises each by itself before they are weighed (GDPO), so that the small weight of ``brief`` means what it says.
The same from the command line::

    policyopt train grpo --model MODEL --task sums.jsonl --judge correct=number:1.0 \
        --judge brief=examples/two_judges.py:brief:0.2 --recipe.advantage Decoupled
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import policyopt as po


def brief(response: str, digits: int) -> float | None:
    """1 for an empty response, falling with its length; says nothing of long sums. ``digits`` is a column of the data."""
    return None if digits > 4 else 1 / (1 + len(response) / 20)


def write_sums(path: Path, count: int) -> Path:
    """Sums with their worked solutions, and a column of our own."""
    sums = [(7 * i % 90 + 10, 11 * i % 80 + 10) for i in range(count)]
    rows = [
        {
            "prompt": f"{a}+{b}=?",
            "answer": a + b,
            "solution": f"{a}+{b}={a + b}\n#### {a + b}",
            "digits": len(f"{a}{b}"),
        }
        for a, b in sums
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def train(task: Path, **settings: Any) -> Any:
    """GRPO on both judges."""
    grpo = po.methods.grpo(kl_coef=0.0)
    recipe = grpo.replace(advantage=po.parts.Decoupled(inner=grpo.advantage))
    return po.train(recipe, task=task, judge={"correct": ("number", 1.0), "brief": (brief, 0.2)}, **settings)


if __name__ == "__main__":
    result = train(write_sums(Path("sums.jsonl"), 400), model="embedded", steps=20)
    print(result.summary["before"]["accuracy"], "->", result.summary["after"]["accuracy"])
