"""Which recipes a loop can serve, and what is said of the others."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from policyopt.errors import UserError
from policyopt.integrations.served import HOSTS, PRIME_RL, TRL, VERL, Host, credited, refusals, serve, shares, table
from policyopt.parts import EntropyBonus, KLPenalty, SeqMeanTokenMean, TokenMean
from policyopt.registry import get_method, methods
from tests.batches import random_batch


@pytest.mark.parametrize(
    ("name", "host", "said"),
    [
        ("ppo", TRL, r"critic ClippedValueLoss: a value function"),
        ("treepo", TRL, r"source \(\w+\) is a program of its own"),
        ("dapo", TRL, r"source.rounds is 10"),
        ("remix", TRL, r"update.replay is 2"),
        ("dcpo-clipping", TRL, r"memory \(\w+\): the loop keeps nothing of a prompt"),
        ("bapo", VERL, r"surrogate \(\w+\) couples the rows of a batch"),
        ("dapo", VERL, r"filter.MixedOutcomes drops rows"),
        ("r2vpo", VERL, r"controllers DualAscent \(regularizers.Proximal.coef\)"),
        ("minirl", VERL, r"weight.\w+ \(\w+\) reads 'rollout_logp', which the loop does not give it"),
        ("open-rs", VERL, r"reads 'formatted'"),
        ("gspo", PRIME_RL, r"aggregate is SeqMeanTokenMean"),
    ],
)
def test_a_recipe_is_refused_by_part_and_reason(name: str, host: Host, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        serve(name, host)
    assert f"{name} cannot be carried out by the loop of {host.name}" in str(error.value)


def test_what_mends_a_recipe_is_what_the_reason_says() -> None:
    assert not refusals(get_method("dapo")().set("source.rounds", 1), TRL)
    assert not refusals(get_method("r2vpo")().replace(controllers=()), VERL)
    assert serve("grpo", VERL, kl_coef=0.0) == get_method("grpo")(kl_coef=0.0)
    with pytest.raises(UserError, match="grpo has no hyper-parameter 'clip'"):
        serve("grpo", VERL, clip=0.1)
    with pytest.raises(UserError, match="the recipe is made already"):
        serve(get_method("grpo")(), VERL, low=0.1)


def test_terms_that_the_host_adds_are_no_reason() -> None:
    grpo = get_method("grpo")()
    assert not refusals(grpo.replace(regularizers=(*grpo.regularizers, EntropyBonus(coef=0.1))), VERL)
    assert refusals(grpo.replace(regularizers=(EntropyBonus(mean=True),)), VERL), "verl's is weighed like the loss"
    assert refusals(grpo, PRIME_RL)
    penalised = grpo.replace(shape=(KLPenalty(),))
    assert not refusals(penalised, VERL)
    right = get_method("pass-at-k")()
    [(kind, said)] = refusals(right.replace(shape=(*right.shape, KLPenalty())), VERL)
    assert kind == "columns" and "'correct'" in said, "the reward comes with the penalty in it"


def test_a_host_is_served_what_it_has_and_nothing_less() -> None:
    """Every column that is taken from TRL's host is missed by somebody, by name; so the trial reads what parts read."""
    served = [name for name, method in methods().items() if not (refusals(method(), TRL) or method().controllers)]
    for column in ("ref_logp", "correct", "noise", "rollout_logp"):
        less = dataclasses.replace(TRL, credit=TRL.credit - {column}, loss=TRL.loss - {column})
        refused = [reasons[0] for name in served if (reasons := refusals(get_method(name)(), less))]
        assert refused and all(kind == "columns" and repr(column) in said for kind, said in refused), column


def test_rows_without_a_reward_leave_before_anything_is_computed() -> None:
    batch = random_batch(groups=(4, 4))
    reward = batch.reward.clone()
    reward[1] = float("nan")
    found, keep = credited(get_method("dr-grpo")(), batch.replace(reward=reward))
    assert keep.tolist() == [True, False, *[True] * 6]
    three = reward[[0, 2, 3]]
    torch.testing.assert_close(found.advantage[[0, 2, 3], 0], three - three.mean())
    assert not found.advantage[1].any() and not found.mask[1].any()
    share = shares(get_method("dr-grpo")().replace(aggregate=SeqMeanTokenMean()), found, keep)
    torch.testing.assert_close(share.sum(1), keep.to(share) / 7)


def test_a_batch_of_which_nothing_is_left_is_zeros() -> None:
    batch = random_batch(groups=(4,))
    found, keep = credited(get_method("grpo")(kl_coef=0.0), batch.replace(reward=torch.full((4,), torch.nan)))
    assert not keep.any() and not found.advantage.any()
    assert not shares(get_method("grpo")(kl_coef=0.0), found, keep).any()


def test_the_table_counts_every_method_once() -> None:
    for host, some in zip(HOSTS, ("bapo", "gmpo", "cispo"), strict=True):
        head, _, _, _, *rows = table(host).splitlines()
        served = head.split(": ")[1].rstrip(".").split(", ")
        refused: list[Any] = [row.split(" | ")[2].removesuffix(" |").split(", ") for row in rows]
        assert some in served and sorted([*served, *(n for names in refused for n in names)]) == sorted(methods())


def test_the_document_has_the_tables_of_the_command() -> None:
    page = (Path(__file__).parents[2] / "docs" / "hosts.md").read_text()
    for host in HOSTS:
        assert table(host) in page, f"python -m policyopt.integrations.served prints another table of {host.name}"


def test_the_document_counts_what_the_hosts_aggregation_adds() -> None:
    page = (Path(__file__).parents[2] / "docs" / "hosts.md").read_text()
    recipes = {name: get_method(name)() for name in sorted(methods())}
    served = {name for name, recipe in recipes.items() if not refusals(recipe, PRIME_RL)}
    more = [
        name
        for name, recipe in recipes.items()
        if name not in served and not refusals(recipe.replace(aggregate=TokenMean()), PRIME_RL)
    ]
    assert f"{len(served)}, and {len(more)} more with" in page
    assert ", ".join(f"`{name}`" for name in more) in page
