"""The page of inpo."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
import torch
from pydantic import ValidationError

from policyopt.items import Verdict
from policyopt.methods.games.inpo import Tournament, inpo
from policyopt.parts import RowScore
from policyopt.sources.program import Response
from tests.batches import dlogp, random_batch
from tests.methods.shared_surrogates import same
from tests.methods.shared_targets import Author, asked


def test_between_ipo_against_the_reference_and_ipo_against_the_last_policy() -> None:
    batch = random_batch(groups=(2, 2))
    for share, against in ((1.0, "reference"), (0.0, "old")):
        ipo = inpo(eta=0.4).set("surrogate.score", RowScore(against=against))
        same(dlogp(inpo(eta=0.4, tau_over_eta=share), batch), dlogp(ipo, batch))
    first = batch.replace(ref_logp=batch.old_logp)
    same(dlogp(inpo(tau_over_eta=0.9), first), dlogp(inpo(tau_over_eta=0.1), first))


def test_beyond_the_target_it_is_pulled_back() -> None:
    batch = random_batch(groups=(2,), lengths=(1, 1)).replace(reward=torch.tensor([1.0, 0.0], dtype=torch.float64))
    batch = batch.replace(ref_logp=batch.old_logp, beats=None)

    def pull(gap: float) -> list[float]:
        up = torch.tensor([gap, 0.0], dtype=torch.float64)[:, None]
        return dlogp(inpo(eta=0.25), batch.replace(logp=batch.old_logp + up))[:, 0].tolist()

    assert pull(2.0) == pytest.approx([0.0, 0.0], abs=1e-12), "1 / (2 eta)"
    assert pull(1.5) == pytest.approx([-1.0, 1.0])
    assert pull(3.0) == pytest.approx([2.0, -2.0])


def test_mirror_descent_comes_to_the_uniform_policy_on_a_circle() -> None:
    """The closed form that the loss fits, with exact expectations."""
    wins = torch.tensor([[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]]).double()
    reference = torch.full((3,), 1 / 3).double()
    policy, eta, share = torch.tensor([0.8, 0.15, 0.05], dtype=torch.float64), 4.0, 0.1
    far = (policy - reference).abs().max()
    for _ in range(300):
        policy = (wins @ policy / eta + share * reference.log() + (1 - share) * policy.log()).softmax(0)
    assert (policy - reference).abs().max() < 1e-6 < far


class Judge:
    """Compares texts by their first token, in a circle where it is told so, and remembers who met."""

    def __init__(self, circle: bool = False) -> None:
        self.met, self.circle = list[tuple[int, int]](), circle

    async def __call__(self, responses: Sequence[Response]) -> list[Verdict]:
        i, j = (r.tokens[0] for r in responses)
        self.met.append((i, j))
        p = float((i > j) != (self.circle and {i, j} == {10, 17}))
        return [
            Verdict(p, False, True, "", parts={"wins": p, "beats": [float("nan"), p]}),
            Verdict(1 - p, False, True, "", parts={"wins": 1 - p, "beats": [1 - p, float("nan")]}),
        ]


@pytest.mark.parametrize(("circle", "left"), [(False, [17, 10]), (True, [17])])
def test_the_pair_of_eight_takes_eleven_duels(circle: bool, left: list[int]) -> None:
    sampler, judge = Author([[x, 2] for x in (13, 17, 11, 12, 16, 10, 15, 14)], [None] * 8), Judge(circle)
    program = Tournament()
    question, context = asked(sampler, program=program)
    object.__setattr__(context, "verdicts", judge)
    rows = asyncio.run(program.draw(question, context))
    assert [r.tokens[0] for r in rows] == left
    assert len(judge.met) == 11
    assert context.tally == {"duels": 11, "undecided": int(circle)}
    with pytest.raises(ValidationError, match="multiple of 2"):
        Tournament(drawn=7)
