"""What probes see at an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from policyopt.engine.local import LocalEngine
from policyopt.items import Verdict
from policyopt.methods.group.grpo import grpo
from policyopt.part import Probe, part
from policyopt.parts.probe.watched import Watched
from policyopt.rows import Batch
from policyopt.sources.program import Response
from policyopt.training.evaluate import Scores
from policyopt.training.probes import draws, measured
from tests.tiny import load_tiny


@part
class Sees(Probe):
    """Logs what it is shown."""

    needs: ClassVar[frozenset[str]] = frozenset({"ref_logp"})

    def samples(self, reward: Tensor, log_ratio: Tensor) -> dict[str, float]:
        return {"b/best": float(reward.max()), "b/moved": float(log_ratio.abs().max()), "b/prompts": len(reward)}

    def model(self, policy: Any, batch: Batch) -> dict[str, float]:
        logp = policy.likelihood().leaves(batch)["logp"]
        return {
            "a/logp": float(logp.detach().sum()),
            "a/groups": len(batch.group.unique()),
            "a/reward": float(batch.reward[1]),
        }


def scores() -> Scores:
    def one(tokens: list[int]) -> Response:
        return Response(tokens, logp=[-1.0] * len(tokens), entropy=[0.5] * len(tokens), versions=[0] * len(tokens))

    rewards = ((0.25, 0.0), (1.0, 0.5))
    sampled = [
        ((7, 8, 9 + i), [one([20, 21 + i]), one([30])], [Verdict(r, r > 0.5, True, "") for r in said])
        for i, said in enumerate(rewards)
    ]
    return Scores({}, [], sampled)


def test_a_probe_sees_parameters_samples_and_the_model(tiny_model: Path) -> None:
    recipe = grpo(kl_coef=0.1).replace(probes=(Sees(),))
    engine = LocalEngine(load_tiny(tiny_model), recipe)
    found = measured(recipe, engine, scores(), 4)
    assert found["measured"] == ["b/best", "b/moved", "b/prompts", "a/logp", "a/groups", "a/reward"]
    assert (found["b/best"], found["b/prompts"], found["a/groups"], found["a/reward"]) == (1.0, 2, 2, 0.0)
    assert found["a/logp"] < 0 and found["b/moved"] > 0
    assert measured(recipe, engine, Scores({}, []), 4) == {}, "without samples there is nothing to see"
    assert measured(grpo(), engine, scores(), 4) == {}
    engine.policy = None  # type: ignore[assignment]
    with torch.no_grad():
        assert "a/logp" not in measured(recipe, engine, scores(), 4)


def test_responses_are_drawn_in_between_for_probes_that_look_at_them_alone() -> None:
    assert draws(grpo().replace(probes=(Watched(), Sees())))
    assert not draws(grpo().replace(probes=(Watched(),))) and not draws(grpo())
