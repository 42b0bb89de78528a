"""Second looks at the same tokens, and what all responses to a prompt make together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from policyopt.capability import refuse_missing
from policyopt.engine import capabilities
from policyopt.engine.local import LocalEngine
from policyopt.errors import UserError
from policyopt.lens.check.parts import faults
from policyopt.lens.cost import take
from policyopt.lens.drawn_rows import drawn_rows
from policyopt.methods.group.grpo import grpo
from policyopt.models import head
from policyopt.part import Look, Weight, part
from policyopt.parts import GroupStatistic
from policyopt.parts.statistic.group import Together, from_logits
from policyopt.recipe import Recipe
from policyopt.rows import Batch
from policyopt.training.looks import contexts
from policyopt.training.samples import kept_samples
from tests.tiny import load_tiny, plain_columns, token_batch, with_contexts


@part
class Hidden(Look):
    """Half of the questions, by chance, are left out."""

    def messages(self, messages: Sequence[Mapping[str, str]], key: tuple[int, ...]) -> list[Mapping[str, str]]:
        return [dict(m) | {"content": m["content"] if sum(key) % 2 else "?"} for m in messages]


@part
class Reread(Weight):
    """How much likelier each token is behind the question than without it."""

    look: Look = Hidden()

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.look.column})

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return (batch.old_logp - batch.behind(self.look)).exp()


@part
class Spread(GroupStatistic):
    """Variance of the log-probabilities over the responses, the length of the mean hidden state, and the reward: all that there is."""

    columns: ClassVar[tuple[str, ...]] = ("reward",)

    def over(self, group: Together) -> Tensor:
        found = torch.zeros_like(group.mask)
        for places, logp in group.chunks():
            found[:, places] = logp.var(0, unbiased=False).sum(-1)
            assert logp.shape[1] <= group.size
        return found + group.hidden.mean(0).norm(dim=-1) + group.columns["reward"].sum()


@part
class Apart(Weight):
    statistic: GroupStatistic = Spread()

    @property
    def fixed(self) -> tuple[GroupStatistic, ...]:
        return (self.statistic,)

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return batch.fixed(self.statistic)


def looking(look: Look) -> Recipe:
    return grpo(kl_coef=0.0).replace(weight=(Reread(look),))


GROUPED = grpo(kl_coef=0.0).replace(weight=(Apart(),))


def batch_of(recipe: Recipe) -> Batch:
    batch = with_contexts(token_batch(), recipe)
    return batch.replace(temperature=torch.tensor([0.8, 1.0, 1.25, 0.7, 1.0, 2.0, 1.5], dtype=torch.float64))


def other_prompt(batch: Batch, recipe: Recipe) -> Batch:
    """The batch as if its responses had been written behind the other contexts."""
    (ids,) = batch.members("context").values()
    return batch.replace(prompt=ids.clamp(min=0), prompt_mask=(ids >= 0).double())


# Looks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["policy", "teacher"])
@pytest.mark.parametrize("rows", [None, 1, 3])
def test_a_look_finds_what_the_model_says_of_the_tokens_behind_the_other_context(
    tiny_model: Path, role: str, rows: int | None
) -> None:
    recipe = looking(Hidden(role=role))
    assert recipe.roles == ({"teacher"} if role == "teacher" else frozenset())
    roles = {"teacher": load_tiny(tiny_model)} if role == "teacher" else {}
    engine = LocalEngine(load_tiny(tiny_model), recipe, roles, micro_batch=rows)
    batch = batch_of(recipe)
    found = engine.annotate(batch, recipe)
    (seen,) = found.members("behind").values()
    plain = plain_columns(engine.policy.model, other_prompt(batch, recipe))["logp"].detach()
    torch.testing.assert_close(seen, plain * batch.mask)
    assert not seen.requires_grad and torch.equal(found.prompt, batch.prompt)
    assert engine.passes[role, False] == int(batch.mask.sum())


def test_what_is_behind_a_look_follows_from_the_key_of_the_row_and_is_shown() -> None:
    recipe = looking(Hidden())
    (_, first), (_, again) = take(recipe), take(recipe)
    name = Hidden().key
    assert torch.equal(first.batch.members("context")[name], again.batch.members("context")[name])
    record = next(kept_samples(first.batch, first.weight, [], 4, first.text))
    told = record["looks"][name]
    assert len(told["logp"]) == len(record["logp"]) == record["length"] and "?" in told["context"]
    drawn = drawn_rows(first)
    assert drawn.looks == (name,)
    blind = [row for row in drawn.rows if any(abs(x) > 1e-3 for x in row.looks[name])]
    assert blind and len(blind) < len(drawn.rows), "some questions were hidden, and some were not"
    assert drawn.seen(name).rows[0].tokens[0].weight == drawn.rows[0].looks[name][0]


def test_a_context_that_does_not_fit_is_refused() -> None:
    _, step = take(looking(Hidden()))
    group: Any = SimpleNamespace(
        example=SimpleNamespace(prompt=[{"role": "user", "content": "1?"}]),
        question=SimpleNamespace(key=(1, 2)),
        responses=[SimpleNamespace(context=(), use="train")],
    )
    with pytest.raises(UserError, match=r"Hidden\(role='policy'\) makes a context of \d+ tokens, .* room for 0"):
        contexts(Hidden(), [group], step.text, 0)


def test_a_need_of_a_look_that_the_part_does_not_hold_is_refused() -> None:
    @part
    class Blind(Reread):
        @property
        def needs(self) -> frozenset[str]:
            return frozenset({"behind[Nothing()]"})

    with pytest.raises(
        ValueError, match=r"weight\.Blind needs 'behind\[Nothing\(\)\]', and no field of it holds the Look"
    ):
        grpo().replace(weight=(Blind(),))


# Groups --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [None, 1, 3])
@pytest.mark.parametrize("chunk", [1 << 28, 4 * 102 * 4 * 2, 1])
def test_a_statistic_of_groups_is_that_of_whole_distributions(
    tiny_model: Path, rows: int | None, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = LocalEngine(load_tiny(tiny_model), GROUPED, micro_batch=rows)
    batch = batch_of(GROUPED)
    n, width, model = len(batch), batch.mask.shape[1], engine.policy.model
    logits, hidden = [], []
    with torch.no_grad():
        for i in range(n):
            p, t = int(batch.prompt_mask[i].sum()), int(batch.mask[i].sum())
            ids = torch.cat([batch.prompt[i, :p], batch.tokens[i, :t]])[None]
            out = model(input_ids=ids, use_cache=False, output_hidden_states=True)
            pad = (0, 0, 0, width - t)
            logits.append(torch.nn.functional.pad(out.logits[0, p - 1 : -1] / batch.temperature[i], pad))
            hidden.append(torch.nn.functional.pad(out.hidden_states[-1][0, p - 1 : -1], pad))
    wanted = from_logits(Spread(), batch, torch.stack(logits), torch.stack(hidden))
    monkeypatch.setattr(head, "CHUNK_BYTES", chunk)
    found = engine.annotate(batch, GROUPED).fixed(Spread())
    torch.testing.assert_close(found, wanted)
    assert (found != 0).sum() == batch.mask.sum()


def test_draws_from_few_tokens_leave_the_others_no_probability(tiny_model: Path) -> None:
    @part
    class Mass(GroupStatistic):
        def over(self, group: Together) -> Tensor:
            return torch.cat([(logp > -50).sum(-1) for _, logp in group.chunks()], 1).double()

    recipe = grpo(kl_coef=0.0).replace(weight=(Apart(Mass()),))
    engine, batch = LocalEngine(load_tiny(tiny_model), recipe), token_batch()
    count = batch.mask.long() * 3
    ids = torch.arange(3 * batch.mask.shape[1]).expand(len(batch), -1) % 102
    ids = torch.stack([batch.tokens, (batch.tokens + 1) % 102, (batch.tokens + 2) % 102], -1).flatten(1) + 0 * ids
    found = engine.annotate(batch.replace(support=count, support_ids=ids.int()), recipe).fixed(Mass())
    assert torch.equal(found, 3 * batch.mask)


def test_what_groups_make_together_is_taken_once() -> None:
    @part
    class Alive(Apart):
        @property
        def live(self) -> tuple[GroupStatistic, ...]:
            return (self.statistic,)

    with pytest.raises(ValueError, match=r"weight\.Alive has Spread under live.*list it under fixed"):
        grpo().replace(weight=(Alive(),))


def test_parts_of_both_kinds_are_sound() -> None:
    assert [*faults(Reread()), *faults(Apart()), *faults(Spread())] == []

    @part
    class First(GroupStatistic):
        def over(self, group: Together) -> Tensor:
            return group.hidden[:1, :, 0].expand_as(group.mask)

    assert faults(First()) == ["First depends on the order of the responses"]


@pytest.mark.parametrize("engine", ["sharded", "ray", "tinker"])
def test_engines_that_have_the_rows_of_a_prompt_apart_refuse(engine: str) -> None:
    with pytest.raises(UserError, match=r"'group statistics' \(weight\.Apart\): functions of the distributions"):
        refuse_missing("grpo", GROUPED.asks, capabilities(engine), engine)
    looks = looking(Hidden())
    if engine == "tinker":
        with pytest.raises(UserError, match=r"'second looks' \(weight\.Reread\)"):
            refuse_missing("grpo", looks.asks, capabilities(engine), engine)
    else:
        refuse_missing("grpo", looks.asks, capabilities(engine), engine)
