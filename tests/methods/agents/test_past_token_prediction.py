"""The page of past-token prediction."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from pathlib import Path
from typing import Any

import torch

from policyopt.items import Example, user
from policyopt.methods.agents.past_token_prediction import Recalling, SelfVerified, chunk_loss, past_token_prediction
from policyopt.methods.group.grpo import grpo
from policyopt.sources.program import Context, Question, Response
from policyopt.training.config import Evaluation, TrainConfig
from policyopt.training.run import run
from tests.batches import dlogp, random_batch
from tests.commands import lines
from tests.methods.agents.playing import Says, player

ECHO = Path(__file__).parents[2] / "echo.py"
QUESTION = Question((1, 2), 80, (0, 0, 0))


class Knows(Says):
    """Finds the past likelier behind a text with more z in it."""

    scored: list[tuple[tuple[int, ...], tuple[int, ...]]]

    async def logprobs(self, tokens: Any, written: Any, *, temperature: float) -> Response:
        self.scored = [*getattr(self, "scored", []), (tuple(tokens), tuple(written))]
        return Response(list(written), [float(tokens.count(ord("z")))] * len(written), [0.0] * len(written))


async def unasked(responses: Any) -> Any:
    raise AssertionError("the world has said what the episode was worth")


def drawn(program: Any, texts: list[str]) -> tuple[list[Response], Knows]:
    sampler = Knows(texts)
    play = partial(player().play, Example("a", user("?"), ""))
    context = Context(sampler, program, unasked, episodes=play)  # type: ignore[arg-type]
    return asyncio.run(program.draw(QUESTION, context)), sampler


def text(tokens: Any) -> str:
    return "".join(map(chr, tokens))


def test_what_was_done_is_told_from_what_came_of_it() -> None:
    (episode, row), _ = drawn(Recalling(size=1), ["ab", "cde", "f"])
    assert text(episode.tokens) == "ab|2|cde|3|f"
    assert text(row.context).endswith("|2||3|"), "all that was heard, and nothing that was said"
    assert text(row.tokens) == "abcde", "all but the last turn, which is the future"
    assert (row.origin, row.verdict) == (1, episode.verdict)


def test_an_answer_of_one_turn_has_no_past() -> None:
    response = Response([5], [-1.0], [0.5], "eos")
    assert asyncio.run(Recalling(size=1).recalled(response, QUESTION, Context(Knows([])))) is None  # type: ignore[arg-type]


def test_the_candidate_is_taken_that_makes_the_past_likeliest() -> None:
    texts = ["az", "bzz", "cc", "dz", "e", "fzz"]
    [episode], sampler = drawn(SelfVerified(candidates=2), texts)
    assert text(episode.tokens) == "az|2|dz|2|fzz", "the first turn has no past: the first candidate"
    heard, done = sampler.scored[-1]
    assert text(heard).endswith("|2||2|fzz") and text(done) == "azdz"
    [plain], sampler = drawn(SelfVerified(candidates=1), ["az", "cc", "e"])
    assert text(plain.tokens) == "az|2|cc|2|e" and not hasattr(sampler, "scored")
    [tied], _ = drawn(SelfVerified(candidates=2), ["a", "b", "c", "d", "e", "f"])
    assert text(tied.tokens) == "a|1|c|1|e"


def test_without_a_past_it_is_grpo() -> None:
    batch = random_batch()
    for coef in (0.0, 0.1):
        found = dlogp(past_token_prediction(past_coef=coef), batch)
        assert torch.allclose(found, dlogp(grpo(kl_coef=0.0), batch)), coef


def test_rows_of_the_past_teach_by_their_likelihood_alone() -> None:
    batch = random_batch()
    origin = torch.tensor([0, 0, 0, 1, 0, 0, 1, 0, 0])
    found = dlogp(past_token_prediction(past_coef=0.3), batch.replace(origin=origin))
    past, tokens = origin == 1, batch.mask[origin == 1].sum()
    assert torch.allclose(found[past], -0.3 * batch.mask[past] / tokens)
    assert torch.allclose(found[~past], dlogp(grpo(kl_coef=0.0), batch[~past]))


def test_a_past_of_no_weight_has_no_gradient() -> None:
    error = torch.rand(2, 4, requires_grad=True)
    chunk_loss(error, 2, 0.0).backward()
    assert error.grad is not None
    assert error.grad[:, :2].abs().sum() == 0 and (error.grad[:, 2:] == 0.25).all()


def test_a_run_in_a_world_recalls_and_says_how_well_its_verified_episodes_do(tiny_model: Path, tmp_path: Path) -> None:
    config = TrainConfig(
        recipe=past_token_prediction(candidates=2, group_size=2), model=str(tiny_model), steps=1, batch=4, max_tokens=60, device="cpu",
        task="seeds", env=f"{ECHO}:Echo", out=tmp_path / "run", eval=Evaluation(prompts=2, samples=0),
    )  # fmt: skip
    result = run(config, quiet=True)
    summary = json.loads((result.out / "summary.json").read_text())
    assert 0 <= summary["after"]["accuracy/decode"] <= 1
    rows = [row for row in lines(result.out / "samples.jsonl") if row["phase"] == "train"]
    assert len(rows) > 4, "rows of the past beside the episodes"
