"""What methods claim: an experiment that can be carried out as it stands, for every method of the library."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from policyopt.claims import Claim, Effect
from policyopt.cli.train import parse_config
from policyopt.compare.testbeds import need_testbed
from policyopt.recipe import Recipe
from policyopt.registry import Method, get_method, methods
from policyopt.training.config import Evaluation, TrainConfig
from tests.batches import EVERY_METHOD
from tests.test_docs import described

PASS = f"pass@{Evaluation().k}"
COMPARED = {
    "accuracy", PASS, "length", "format", "distinct", "best", "drop", "tokens", "seconds", "tokens/step",
    "seconds/step", "tokens to target", "seconds to target",
}  # fmt: skip
"""Metrics that ``policyopt compare`` measures itself; the others are those of the log."""
STEPS, MOST_STEPS, BATCH = 40, 80, 128
MATCHED = {"seed", "out", "task", "model", "batch", "resume", "config"}
"""What the comparison decides, and no claim."""

CLAIMED = pytest.mark.parametrize(
    "method", [pytest.param(m, id=name) for name, m in methods().items() if m.claim and not m.claim.beyond]
)


def line(options: Mapping[str, Any]) -> list[str]:
    """Options as words of a command line."""
    words: list[str] = []
    for name, value in options.items():
        if isinstance(value, bool):
            group, _, field = name.rpartition(".")
            words.append(f"--{group}{'.' if group else ''}{'' if value else 'no-'}{field}")
        else:
            words += [f"--{name}", *(map(str, value) if isinstance(value, tuple | list) else [str(value)])]
    return words


@dataclass(frozen=True)
class Experiment:
    """The two runs of a claim."""

    claim: Claim
    ours: TrainConfig
    theirs: TrainConfig


def opponent(method: Method) -> Method:
    """What a method is held against."""
    claim = method.claim
    assert claim is not None
    return get_method(claim.against or method.parent or "grpo")


def experiment(method: Method) -> Experiment:
    """The runs that a claim asks for, parsed as ``policyopt train`` does."""
    claim = method.claim
    assert claim is not None
    bed = need_testbed(claim.testbed)

    def run(who: Method, own: Mapping[str, Any]) -> TrainConfig:
        given = {"task": bed.task, "steps": STEPS, "batch": BATCH, **bed.options, **claim.both, **own}
        return parse_config(who, line(given))[0]

    return Experiment(claim, run(method, claim.ours), run(opponent(method), claim.theirs))


@EVERY_METHOD
def test_every_method_claims_something(method: Method) -> None:
    claim = method.claim
    assert claim is not None, f"{method.name} declares no claim: @method(..., claim=Claim(...))"
    assert claim.says.endswith(".") and claim.says[0].isupper(), claim.says
    assert len(claim.says) < 200, "a sentence"
    assert not (claim.beyond and (claim.both or claim.ours or claim.theirs)), "options of runs that nobody makes"


def test_three_claims_in_four_can_be_put_to_the_test() -> None:
    claims = [m.claim for m in methods().values() if m.claim]
    assert sum(not c.beyond for c in claims) >= 0.75 * len(claims)


@CLAIMED
def test_the_experiment_of_a_claim_can_be_carried_out(method: Method) -> None:
    found = experiment(method)
    assert opponent(method) is not method, "two contenders of one name"
    given = {*found.claim.both, *found.claim.ours, *found.claim.theirs}
    assert not given & MATCHED
    assert found.ours.steps == found.theirs.steps <= MOST_STEPS
    assert found.ours.batch == found.theirs.batch == BATCH, "responses of a step"
    assert found.ours.eval == found.theirs.eval
    assert found.ours.recipe != found.theirs.recipe, "there is nothing to compare"


@CLAIMED
def test_the_effects_of_a_claim_are_measured(method: Method) -> None:
    found = experiment(method)
    names = [effect.metric for effect in found.claim.effects]
    assert len(set(names)) == len(names), "a metric twice"
    unknown = {name for name in names if name not in COMPARED and not _logged(name)}
    assert not unknown, "neither of the comparison nor in docs/glossary.md"
    if "kl/ref" in names:
        assert all("ref_logp" in run.recipe.needs for run in (found.ours, found.theirs)), (
            "nobody asks for the reference"
        )
    if any(name.startswith("clip_fraction/") for name in names):
        assert all(_clips(run.recipe) for run in (found.ours, found.theirs)), (
            "a run that clips nothing logs no share of it"
        )


@CLAIMED
def test_a_claim_says_more_than_that_nothing_is_lost(method: Method) -> None:
    """Where every effect may be 0, as many steps of the opponent itself would support it, unless the claim is to do as well
    without something that costs."""
    claim = method.claim
    assert claim is not None
    assert any(effect.least > 0 for effect in claim.effects) or re.search(r"\bas (well|good|many|often)\b", claim.says)


def _logged(name: str) -> bool:
    told = described()
    return name in told or any(
        name.startswith(f"{t.removesuffix(end)}") for t in told for end in ("*", "NAME", "PATH") if t.endswith(end)
    )


def _clips(recipe: Recipe) -> bool:
    return getattr(recipe.surrogate, "low", None) is not None or any(hasattr(w, "low") for w in recipe.weight)


# What a claim cannot be ------------------------------------------------------------------------------------------------


def test_a_claim_has_an_experiment_or_a_reason_why_not() -> None:
    effects = (Effect("accuracy", "higher", 0.02),)
    for wrong in (
        {},
        {"testbed": "chain_sum"},
        {"effects": effects},
        {"testbed": "stale", "effects": effects, "beyond": "large"},
    ):
        with pytest.raises(ValueError, match="a testbed and effects, or says why it cannot be shown here"):
            Claim("More are right.", **wrong)
    assert Claim("More are right.", beyond="needs a judge").effects == ()


def test_an_effect_has_one_of_two_directions() -> None:
    with pytest.raises(ValueError, match="direction is 'up': it is one of higher, lower"):
        Effect("accuracy", "up", 0.1)  # type: ignore[arg-type]
