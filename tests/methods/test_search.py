"""Methods with a critic that guides a search: OREO's losses, ReST-RL's groups, beams and trees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from policyopt.engine.local import LocalEngine, LocalSampler
from policyopt.errors import UserError
from policyopt.methods.critic.oreo import Beam, SoftBellmanValue, oreo
from policyopt.methods.critic.ppo import ppo
from policyopt.methods.group.grpo import grpo
from policyopt.methods.tree.rest_rl import rest_rl
from policyopt.methods.tree.rest_rl.search import Search
from policyopt.parts import ClippedValueLoss
from policyopt.parts.critic.nodes import NodeValueLoss
from policyopt.recipe import recipe_from_dict
from policyopt.rows import join
from policyopt.sources.draw import Group
from policyopt.sources.program import Response
from policyopt.training.config import Checkpoints, Evaluation, Optim, TrainConfig
from policyopt.training.run import run
from tests.batches import random_batch, ready
from tests.commands import lines, write_rows
from tests.methods.shared_search import BREAK, END, prompt
from tests.tiny import load_tiny, token_batch


def test_on_the_reference_the_critic_regresses_on_the_reward() -> None:
    batch = random_batch()
    batch = ready(oreo(), batch.replace(logp=batch.ref_logp, old_logp=batch.ref_logp))
    plain = ClippedValueLoss(coef=2.0, clip=None, lam=1.0)
    expected = plain(batch.replace(returns=plain.target(batch)))
    for part in (SoftBellmanValue(), NodeValueLoss()):
        flat = batch.replace(node=None, node_end=None, node_value=None)
        torch.testing.assert_close(part(flat) * batch.mask, expected * batch.mask)
        torch.testing.assert_close(part.target(flat), batch.reward[:, None] * batch.mask)


def test_lines_end_behind_their_breaks_and_with_the_text() -> None:
    _, asked = prompt()
    assert asked.lines([5, BREAK, 6, BREAK, END]) == [2, 4, 5]
    assert asked.lines([5, BREAK, 6, BREAK]) == [2, 4]
    assert asked.lines([5]) == [1] and asked.lines([]) == []


# In the engine -------------------------------------------------------------------------------------------------------


def test_the_engine_values_states_as_the_critic_does_in_training(tiny_model: Path) -> None:
    policy = load_tiny(tiny_model)
    engine = LocalEngine(policy, ppo())
    assert engine.critic is not None
    torch.nn.init.normal_(engine.critic.head.weight, generator=torch.Generator().manual_seed(0))
    batch = token_batch()
    values, states, expected = engine.critic(batch).detach(), [], []
    for i in range(len(batch.mask)):
        asked = batch.prompt[i, : int(batch.prompt_mask[i].sum())].tolist()
        for t in range(int(batch.mask[i].sum())):
            states.append([*asked, *batch.tokens[i, :t].tolist()])
            expected.append(float(values[i, t]))
    assert engine.values(states) == pytest.approx(expected, abs=1e-12)
    engine.micro_batch = 2
    assert engine.values(states) == pytest.approx(expected, abs=1e-12)
    with pytest.raises(UserError, match=r"set recipe\.critic"):
        LocalEngine(policy, grpo()).values(states)


def test_more_rows_than_places_do_not_disturb_each_other(tiny_model: Path) -> None:
    """Programs that come back while others wait: what was read for some must not be overwritten by the next."""
    sampler = LocalSampler.of(load_tiny(tiny_model))
    sampler.max_rows, sampler.eos = 5, frozenset()

    async def program(i: int) -> tuple[tuple[int, ...], Response]:
        tokens: tuple[int, ...] = tuple(range(10 + i, 16 + 2 * i))
        for step in range(3):
            found = await sampler.generate(tokens, n=3, max_tokens=2 + (i + step) % 4, key=(i, step), keep=True)
            asked, tokens = tokens, (*tokens, *found[-1].tokens)
        return asked, found[-1]

    for asked, r in sampler.run([program(i) for i in range(7)]):
        [said] = sampler.run([sampler.logprobs(asked, tuple(r.tokens), temperature=1.0)])
        assert said.logp == pytest.approx(r.logp, abs=1e-6)


def test_values_cannot_be_asked_for_without_a_critic() -> None:
    for program in (Beam(), Search()):
        with pytest.raises(ValueError, match="needs 'value', which nothing provides: set critic"):
            grpo().replace(decode=program)
    assert oreo(beam=0).decode is None and grpo().replace(decode=Group(size=1)).decode == Group(size=1)
    assert recipe_from_dict(rest_rl(stage="value").to_dict()) == rest_rl(stage="value")


def test_steps_of_unlike_number_stay_steps_when_batches_are_joined() -> None:
    one, two = (random_batch().replace(step_end=torch.full((9, k), 1)) for k in (1, 3))
    joined = join([one, two.replace(group=two.group + 3)])
    assert joined.step_end[:9].tolist() == [[1, -1, -1]] * 9


JUDGE = '''
def judge(prompt, response, answer):
    """Half of what an untrained model writes is right."""
    return {"score": float(sum(map(ord, response)) % 2), "correct": sum(map(ord, response)) % 2 == 0}
'''


@pytest.mark.parametrize(
    "recipe",
    [
        oreo(action="step", group_size=2),
        rest_rl(stage="value", iterations=2, samples=3),
        oreo().replace(source=Beam(size=2)),
    ],
    ids=["steps", "value", "beam"],
)
def test_further_stages_train_what_they_say(recipe: Any, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text(JUDGE)
    data = write_rows(tmp_path / "data.jsonl", ({"prompt": f"{i}?", "answer": "?"} for i in range(24)))
    config = TrainConfig(
        recipe=recipe, model=str(tiny_model), task=str(data), judge=f"{tmp_path / 'judge.py'}:judge", steps=2,
        batch=2 * recipe.source.size, max_tokens=10, device="cpu", out=tmp_path / "run", optim=Optim(lr=1e-3),
        eval=Evaluation(prompts=3, samples=0), checkpoints=Checkpoints(keep=1),
    )  # fmt: skip
    result = run(config, quiet=True)
    assert 0 <= result.summary["before"]["accuracy/decode"] <= 1 and "accuracy/decode" in result.summary["after"]
    rows = lines(result.out / "metrics.jsonl")
    assert all(row["update/skipped"] == 0 for row in rows[1:])
    assert (rows[-1]["grad_norm"] == 0) == (recipe.source != Beam(size=2) and "Search" in repr(recipe.source))
