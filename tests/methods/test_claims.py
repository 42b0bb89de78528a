"""What methods claim: for each of the library an experiment that can be carried out as it stands, or why there is none."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest

from policyopt.claims import Claim, Effect
from policyopt.cli.replicate import trial
from policyopt.comparing.measures import PAIRS
from policyopt.comparing.replicate import Trial
from policyopt.comparing.testbeds import need_testbed
from policyopt.recipe import Recipe
from policyopt.registry import Method, methods
from policyopt.training.config import TrainConfig
from tests.batches import EVERY_METHOD
from tests.test_docs import described

COMPARED = {
    "accuracy", "length", "format", "distinct", "best", "drop", "tokens", "seconds", "tokens/step", "seconds/step",
    "tokens to target", "seconds to target", "exploitability", *(name for name, *_ in PAIRS),
}  # fmt: skip
"""What a comparison measures itself, beside pass@k; other metrics are those of the log."""
MOST_STEPS, BATCH = 80, 128
DECIDED = {"seed", "out", "task", "model", "batch", "resume", "config"}
"""What is the same for all claims."""
CLAIMS = {name: method.claim for name, method in methods().items() if method.claim is not None}
SHOWN = pytest.mark.parametrize("name", [name for name, claim in CLAIMS.items() if not claim.beyond])


@cache
def sides(name: str) -> tuple[Trial, TrainConfig, TrainConfig]:
    """The trial of a claim, the method's own run, and that of its opponent."""
    found = trial(name)
    assert found.ours is not None and found.theirs is not None
    return found, found.ours.config, found.theirs.config


@EVERY_METHOD
def test_every_method_claims_something(method: Method) -> None:
    claim = method.claim
    assert claim is not None, f"{method.name} declares no claim: @method(..., claim=Claim(...))"
    assert re.fullmatch(r"[A-Z].{20,180}\.", claim.says), "a sentence"
    assert not (claim.beyond and (claim.both or claim.ours or claim.theirs)), "options of runs that nobody makes"


def test_three_claims_in_four_are_put_to_the_test() -> None:
    assert sum(not claim.beyond for claim in CLAIMS.values()) >= 0.75 * len(CLAIMS)


@SHOWN
def test_the_experiment_of_a_claim_can_be_carried_out(name: str) -> None:
    found, ours, theirs = sides(name)
    found.grid((0, 1)).check()
    claim = found.claim
    assert not {*claim.both, *claim.ours, *claim.theirs} & DECIDED
    assert ours.steps == theirs.steps <= MOST_STEPS
    batch = need_testbed(claim.testbed).options.get("batch", BATCH)
    assert all(0.9 * batch < run.batch <= batch for run in (ours, theirs)), "as many as groups make whole"
    assert (ours.staleness, ours.learning_rate()) == (theirs.staleness, theirs.learning_rate())
    assert ours.recipe != theirs.recipe.replace(name=ours.recipe.name), "both do the same"


@SHOWN
def test_the_effects_of_a_claim_are_measured(name: str) -> None:
    found, ours, theirs = sides(name)
    effects = {effect.metric: effect for effect in found.claim.effects}
    assert len(effects) == len(found.claim.effects), "a metric twice"
    measured = COMPARED | {f"pass@{ours.eval.k}"}
    assert {metric for metric in effects if metric not in measured and not _logged(metric)} == set()
    for run in (ours, theirs):
        assert "kl/ref" not in effects or "ref_logp" in run.recipe.needs, "logged where something reads the reference"
        clips = any(metric.startswith("clip_fraction/") for metric in effects)
        assert not clips or _clips(run.recipe), "logged by what clips"


@SHOWN
def test_a_claim_asks_for_more_than_that_nothing_changes(name: str) -> None:
    """What loses nothing is no finding, but where the method does without something that the other has."""
    claim = CLAIMS[name]
    assert any(effect.least > 0 for effect in claim.effects) or re.search(r"\b(needs?|without)\b", claim.says)


def _logged(metric: str) -> bool:
    families = (re.sub(r"(\*|NAME|PATH)", ".+", re.escape(told).replace(r"\*", "*")) for told in described())
    return any(re.fullmatch(family, metric) for family in families)


def _clips(recipe: Recipe) -> bool:
    return any(getattr(p, "low", None) is not None for p in (recipe.surrogate, *recipe.weight))


# What a claim cannot be ------------------------------------------------------------------------------------------------

EFFECTS = (Effect("accuracy", "higher", 0.02),)


@pytest.mark.parametrize(
    "given",
    [{}, {"testbed": "ties"}, {"effects": EFFECTS}, {"testbed": "ties", "effects": EFFECTS, "beyond": "needs tools"}],
)
def test_a_claim_has_an_experiment_or_says_why_not(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a testbed and effects, or says why it cannot be shown here"):
        Claim("More are right.", **given)


def test_an_effect_has_one_of_two_directions() -> None:
    with pytest.raises(ValueError, match="direction is 'up': it is one of higher, lower"):
        Effect("accuracy", "up", 0.1)  # type: ignore[arg-type]
