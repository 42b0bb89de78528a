"""DPO put together from parts: pairs of a preferred and a rejected text, nothing drawn, nothing judged.

Run it with ``python examples/dpo_by_hand.py``. It writes a file of pairs (a sum with its right result and with a wrong one), trains the
embedded model on them, and prints how the margin of held-out pairs grew.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import policyopt as po
from policyopt.data import load_task
from policyopt.models.embedded import build_embedded
from policyopt.parts import Logistic, Normalise, Pairs, RowScore, SeqMeanTokenMean
from policyopt.recipe import Recipe
from policyopt.sources.given import PreferencePairs


def recipe(beta: float = 0.1) -> Recipe:
    """The mean over pairs of -log sigmoid(beta * margin), the margin in nats against the reference."""
    return Recipe(
        source=PreferencePairs(),
        advantage=Normalise(centre="none", scale="none"),  # the reward as it is: 1 for the chosen text, 0 for the other
        surrogate=Pairs(score=RowScore(against="reference"), link=Logistic(beta=beta)),
        aggregate=SeqMeanTokenMean(),
        name="dpo-by-hand",
    )


def write_pairs(path: Path, count: int = 400) -> Path:
    """Sums, each answered right and one off."""
    task = load_task("chain_sum")
    with path.open("w") as file:
        for example in (task.train[i] for i in range(count)):
            texts = {"chosen": f"#### {example.answer}", "rejected": f"#### {int(example.answer) + 1}"}
            file.write(json.dumps({"prompt": list(example.prompt)} | texts) + "\n")
    return path


def main() -> None:
    """Train for 30 steps."""
    model = build_embedded(load_task("chain_sum"))
    with tempfile.TemporaryDirectory() as folder:
        task = write_pairs(Path(folder) / "pairs.jsonl")
        result = po.train(
            recipe(), model=str(model), task=str(task), steps=30, batch=64, max_tokens=48, out=Path(folder) / "run",
            optim={"lr": 1e-4}, quiet=True,
        )  # fmt: skip
    for phase in ("before", "after"):
        found = result.summary[phase]
        print(
            f"{phase}: margin {found['pairs/margin']:+.2f} nats, {found['pairs/accuracy']:.0%} of held-out pairs in order"
        )


if __name__ == "__main__":
    main()
