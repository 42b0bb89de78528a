"""The page of ECHO."""

from __future__ import annotations

import torch

from policyopt.environments.worlds.calculator import Calculator, call
from policyopt.methods.agents.echo import WithObservations, echo
from policyopt.methods.group.grpo import grpo
from policyopt.rows import Batch
from tests.batches import dlogp
from tests.played import TEXT, Scripted, as_batch, play


def says(context: str, key: tuple[int, ...]) -> str:
    """Every other episode asks the calculator first, the others answer at once."""
    wrote = context.rsplit("q?", 1)[-1]
    return "#### 408" if "408" in wrote or key[3] % 2 else call("12*34")


def drawn(size: int = 4) -> Batch:
    batch = as_batch(play(WithObservations(size=size), Scripted(says), Calculator), echo().needs)
    moved = 0.3 * torch.sin(torch.arange(batch.mask.numel(), dtype=torch.float64)).view_as(batch.mask)
    reward = torch.arange(len(batch), dtype=torch.float64)
    return batch.replace(logp=batch.old_logp + moved * batch.mask, reward=reward)


def test_what_others_said_is_a_row_of_its_own() -> None:
    rows = play(WithObservations(size=4), Scripted(says), Calculator)
    episodes, echoes = ([r for r in rows if r.origin == o] for o in (0, 1))
    assert [bool(r.own) for r in episodes] == [True, False, True, False] and len(echoes) == 2
    for episode, echoed in zip(episodes[::2], echoes, strict=True):
        assert echoed.tokens == episode.tokens[: len(echoed.tokens)]
        assert [not own for own in echoed.own] == episode.own[: len(echoed.own)] and echoed.own[-1]
        assert "408" in TEXT.decode([t for t, o in zip(echoed.tokens, echoed.own, strict=True) if o])
        assert all(episode.own[len(echoed.own) :])


def test_it_is_grpo_and_the_mean_cross_entropy_of_what_others_said() -> None:
    batch = drawn()
    main = batch.origin == 0
    found = dlogp(echo(observation_coef=0.3), batch)
    torch.testing.assert_close(found[main], dlogp(grpo(kl_coef=0.0), batch[main]), rtol=0, atol=0)
    said = batch.mask[~main]
    torch.testing.assert_close(found[~main], -0.3 * said / said.sum())
    assert echo(observation_coef=0.0) == grpo(kl_coef=0.0)


def test_a_group_of_failures_still_learns_what_the_world_says() -> None:
    batch = drawn()
    found = dlogp(echo(), batch.replace(reward=torch.zeros_like(batch.reward)))
    assert not found[batch.origin == 0].any()
    assert (found[batch.origin == 1].sum(1) < 0).all()
