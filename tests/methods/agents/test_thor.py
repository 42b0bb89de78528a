"""The page of thor."""

from __future__ import annotations

import torch

from policyopt.environments.worlds.calculator import Calculator, call
from policyopt.methods.agents.thor import Better, RestartedCalls, SoundTrajectories, thor
from policyopt.objective import credit, kept
from tests.batches import dlogp, random_batch
from tests.played import TEXT, Scripted, as_batch, play

BAD, GOOD = call("1+"), call("12*34")


def says(context: str, key: tuple[int, ...]) -> str:
    """A failed call in every other episode, and a good one where the policy is asked again."""
    again = key[3] == -1
    wrote = context.rsplit("q?", 1)[-1]
    if again:
        return GOOD[1:] if key[4] % 2 else BAD[1:]
    if "error" in wrote or "408" in wrote:
        return "#### 408"
    return BAD if key[3] % 2 else GOOD


def test_a_failed_call_is_written_anew_from_shortly_before_it() -> None:
    rows = play(RestartedCalls(size=4, back=5), Scripted(says), Calculator)
    main, steps = ([r for r in rows if r.origin == o] for o in (0, 1))
    assert len(main) == 4 and len(steps) == 4
    for step in steps:
        given = [t for t, own in zip(step.tokens, step.own, strict=True) if not own]
        assert TEXT.decode(given) == BAD[:1], "the beginning of the failed turn is read"
        assert len(step.columns["turn_end"]) == 1, "one turn"  # type: ignore[arg-type]
        assert step.verdict is not None and step.verdict.score == float("12*34" in TEXT.decode(step.tokens))
    assert {step.verdict.score for step in steps if step.verdict} == {0.0, 1.0}
    batch = as_batch(rows, thor().needs)
    assert (dlogp(thor(), batch.replace(logp=batch.old_logp))[batch.mask == 0] == 0).all()
    keep = kept(thor(), batch)
    assert keep[:4].sum() in (0, 2) and keep[4:].all(), "episodes with a failed call are not trained on"


def test_where_no_call_fails_nothing_is_written_anew() -> None:
    rows = play(RestartedCalls(size=3), Scripted(lambda context, key: "#### 1"), Calculator)
    assert [r.origin for r in rows] == [0, 0, 0]


def test_a_turn_without_a_call_is_left_out() -> None:
    silent = Scripted(lambda context, key: "well" if key[3] == -1 else says(context, key))
    assert all(r.origin == 0 for r in play(RestartedCalls(size=4, back=99), silent, Calculator))


def test_likelihood_is_raised_where_the_advantage_is_above_zero_alone() -> None:
    batch = random_batch(groups=(4,))
    recipe = thor().replace(filter=())
    with_, without = dlogp(recipe, batch), dlogp(thor(alpha=0.0).replace(filter=()), batch)
    changed = ((with_ - without) != 0).any(1)
    assert torch.equal(changed, Better()(credit(recipe, batch)))


def test_rows_of_one_source_are_compared_among_their_own() -> None:
    batch = random_batch(groups=(4,)).replace(
        origin=torch.tensor([0, 0, 1, 1]), reward=torch.tensor([1.0, 0.0, 1.0, 1.0]).double()
    )
    found = credit(thor(), batch).advantage
    assert (found[2:] == 0).all() and (found[:2, 0] != 0).all()
    assert SoundTrajectories()(batch.replace(formatted=torch.ones(4).double())).tolist() == [True, True, False, False]
