"""Routers of mixtures of experts: found by what they do, observed, and made to choose again."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeTopKRouter

from policyopt.errors import UserError
from policyopt.models.routing import Choices, Routers, find_routers, records_at
from policyopt.sources.routes import Routes
from tests.tiny import EXPERTS, family_model, load_tiny, save_tiny_moe, tiny_moe, token_batch

_LATENT = {
    "n_routed_experts": 8, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1, "n_shared_experts": 1, "kv_lora_rank": 8,
    "q_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8, "head_dim": 8, "num_key_value_heads": 2,
}  # fmt: skip
KINDS: dict[str, tuple[dict[str, Any], int]] = {
    "qwen3_moe": ({}, 3),
    "mixtral": ({"num_local_experts": 8}, 3),
    "olmoe": ({}, 3),
    "gpt_oss": ({"num_local_experts": 8}, 3),
    "granitemoe": ({"num_local_experts": 8}, 3),
    "deepseek_v3": (_LATENT, 2),
}
"""Families with what they call their sizes, and how many of their layers have experts."""
IDS = torch.tensor([[5, 9, 11, 30, 8, 21], [7, 7, 40, 3, 2, 18]])


def read(model: Any, choices: Any) -> Tensor:
    with choices:
        hidden: Tensor = model(input_ids=IDS, use_cache=False).last_hidden_state
    return hidden


def moved(model: Any, size: float) -> Any:
    """A copy of a model with other weights."""
    other = copy.deepcopy(model)
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(size * torch.randn(p.shape, generator=g).to(p))
    return other


@pytest.mark.parametrize("family", KINDS)
def test_experts_that_were_recorded_are_taken_again_by_a_model_that_chooses_others(family: str) -> None:
    changes, layers = KINDS[family]
    model = tiny_moe(family, 41, **changes).model
    routers = find_routers(model, 41)
    assert (len(routers.modules), routers.experts, routers.top_k, routers.dtype) == (layers, 8, 2, torch.uint8)
    own = routers.recording()
    with torch.no_grad():
        hidden = read(model, own)
    routes = own.routes(2)
    assert routes.shape == (2, 6, layers * 2) and routes.min() >= 1 and routes.max() <= 8
    assert torch.equal(read(model, routers.replaying(torch.zeros_like(routes))), hidden), "0: the router chooses"

    other = moved(model, 0.1)
    theirs = find_routers(other, 41)
    free, replayed = theirs.recording(), Choices(theirs, routes)
    free_hidden = read(other, free)
    replayed_hidden = read(other, replayed)
    assert not torch.equal(free.routes(2), routes), "by itself it would take others"
    assert torch.equal(replayed.routes(2), routes)
    assert not torch.allclose(replayed_hidden, free_hidden, atol=1e-4)
    replayed_hidden.square().mean().backward()
    assert all(m.weight.grad.abs().max() > 0 for m in theirs.modules), "the weights of the experts are of now"
    assert not any("forward" in m.__dict__ for x in (model, other) for m in x.modules()), "no trace is left"


def test_the_weights_are_the_scores_of_now_over_the_experts_that_are_given() -> None:
    """Against the formula, written down apart from the code of the family."""
    model = tiny_moe("qwen3_moe", 41, norm_topk_prob=True).model
    routers = find_routers(model, 41)
    routes = torch.randint(1, 9, (2, 6, 3, 1), generator=torch.Generator().manual_seed(3))
    routes = torch.cat([routes, routes % 8 + 1], -1).flatten(2)
    given = routes.view(12, 3, 2) - 1
    layers = {id(m): i for i, m in enumerate(routers.modules)}

    def plain(router: Any, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mine = given[:, layers[id(router)]]
        scores = (hidden @ router.weight.T).gather(-1, mine)
        return scores, torch.softmax(scores, -1), mine

    with mock.patch.object(Qwen3MoeTopKRouter, "forward", plain):
        expected = model(input_ids=IDS, use_cache=False).last_hidden_state
    torch.testing.assert_close(read(model, routers.replaying(routes)), expected, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_replayed_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="Qwen3Model is no mixture of experts"):
        find_routers(family_model("qwen3").model, 41)
    with pytest.raises(UserError, match="PhimoeModel chooses its experts in a way that cannot be taken again"):
        find_routers(tiny_moe("phimoe", 41, num_local_experts=8, tie_word_embeddings=False).model, 41)


def test_layers_that_are_passed_again_take_the_same_experts(tmp_path: Path) -> None:
    """In backward the model is called outside of any context, on weights whose own choice is another one."""
    folder = save_tiny_moe(tmp_path / "moe")
    gradients = []
    for recomputed in (False, True):
        policy = load_tiny(folder, "float64", gradient_checkpointing=recomputed)
        split, batch = policy.likelihood(), token_batch()
        routes = split.choices(batch)
        batch = batch.replace(routes=torch.where(routes > 0, routes.long() % 8 + 1, 0))
        out = split.leaves(batch)["logp"]
        split.leaves(batch.replace(routes=None))  # what is read in between changes nothing
        out.sum().backward()
        gradients.append({n: p.grad for n, p in policy.trainable()})
    for name, g in gradients[0].items():
        assert torch.allclose(gradients[1][name], g, rtol=1e-4, atol=1e-5), name  # routers round to float32


def test_records_are_small_and_end_where_the_text_becomes_another() -> None:
    few, many = (Routers((), experts, 8) for experts in (255, 256))
    assert (few.dtype, many.dtype) == (torch.uint8, torch.int16)
    experts = torch.arange(1, 9, dtype=torch.uint8).view(4, 2)
    routes = Routes((5, 6, 7, 8), experts)
    assert torch.equal(routes.of((5, 6, 9, 8)), experts[:2])
    assert len(routes.of((4, 6, 7, 8))) == 0 and len(routes.of((5, 6, 7, 8, 9))) == 4
    longer = routes.followed((5, 6, 7, 8, 9), torch.full((5, 2), 99, dtype=torch.uint8))
    assert longer.experts[:, 0].tolist() == [1, 3, 5, 7, 99], "what is known stays as it was"
    again = Routes.from_dict(longer.to_dict())
    assert again.ids == longer.ids and torch.equal(again.experts, longer.experts) and again.experts.dtype == torch.uint8
    table = experts[None].expand(2, -1, -1)
    assert records_at(table, torch.tensor([0, 3]), 2)[:, :, 0].tolist() == [[1, 3], [7, 0]]


def test_a_mixture_of_experts_is_loaded_in_float64(tmp_path: Path) -> None:
    policy = load_tiny(save_tiny_moe(tmp_path / "moe"), "float64")
    assert policy.model.dtype == torch.float64 and EXPERTS["num_experts"] == 8
    assert torch.isfinite(policy.likelihood().leaves(token_batch())["logp"]).all()
