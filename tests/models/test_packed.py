"""Packed rows: each token once, attention over exactly the tokens before it, and the gradient of rows that go alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from policyopt.engine.local import LocalEngine
from policyopt.models import attention
from policyopt.models.attention import block, block_gradients
from policyopt.models.causal import split_model
from policyopt.models.forest import Forest, grow
from policyopt.models.packed import Attention, lay_out, packed_hidden
from policyopt.models.pieces import packed_pieces
from policyopt.registry import Method, methods
from policyopt.rows import Batch, make_batch
from tests.engine.test_local import difference, drawn, engine_of, grads, groups_of, naive, with_all_terms
from tests.tiny import family_model, load_tiny, token_batch


def segment_of(forest: Forest) -> np.ndarray:
    found = np.full(len(forest), -1)
    for number, (start, length) in enumerate(zip(forest.start, forest.length, strict=True)):
        assert (found[start : start + length] == -1).all()
        found[start : start + length] = number
    assert (found >= 0).all(), "every token is in one segment"
    return found


def seen(forest: Forest, segment: np.ndarray, token: int) -> set[int]:
    """The tokens that a token attends to."""
    found = set(range(forest.start[segment[token]], token + 1))
    for start, length, end in zip(forest.start, forest.length, forest.end, strict=True):
        if start + length <= token < end:
            found |= set(range(start, start + length))
    return found


def test_every_token_sees_its_own_row_up_to_itself() -> None:
    random = np.random.default_rng(0)
    for _ in range(400):
        rows, width = random.integers(0, 8), random.integers(1, 9)
        ids, length = random.integers(0, 3, (rows, width)), random.integers(0, width + 1, rows)
        forest = grow(ids, length)
        segment = segment_of(forest)
        for i in range(rows):
            mine = forest.place[i, : length[i]]
            assert (ids.reshape(-1)[forest.source[mine]] == ids[i, : length[i]]).all()
            assert (forest.position[mine] == np.arange(length[i])).all()
            for j, token in enumerate(mine):
                assert seen(forest, segment, token) == set(mine[: j + 1])
        distinct = len({tuple(ids[i, : j + 1]) for i in range(rows) for j in range(length[i])})
        assert distinct <= len(forest) <= length.sum()


def tree(depth: int, arms: int, length: int, seed: int = 0) -> Tensor:
    """[arms^depth, (depth + 1) length] the leaves of a tree whose every edge is a text of its own, behind one root."""
    g = torch.Generator().manual_seed(seed)
    rows = torch.randint(6, 41, (1, length), generator=g)
    for _ in range(depth):
        rows = rows.repeat_interleave(arms, 0)
        rows = torch.cat([rows, torch.randint(6, 41, (len(rows), length), generator=g)], 1)
    return rows


def dialogue(turns: int, length: int) -> list[Tensor]:
    """The rows of a dialogue, each the one before with another turn, as an agent's episode is cut into rows."""
    whole = torch.randint(6, 41, (turns * length,), generator=torch.Generator().manual_seed(1))
    return [whole[: (i + 1) * length] for i in range(turns)]


TEXTS = {
    "a tree of 64 leaves": [*tree(3, 4, 8)],
    "ten turns": dialogue(10, 12),
    "both": [*tree(3, 4, 8), *dialogue(10, 12)],
}


def whole_texts(texts: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    ids, length = pad_sequence(texts, batch_first=True), torch.tensor([len(x) for x in texts])
    row, position = (torch.arange(ids.shape[1]) < length[:, None]).nonzero(as_tuple=True)
    return ids, row, position


@pytest.mark.parametrize("texts", TEXTS.values(), ids=TEXTS)
def test_trees_and_turns_pass_once_and_come_out_as_rows_alone(texts: list[Tensor]) -> None:
    model = family_model("llama", torch.float64)
    passed: list[int] = []
    hook = model.model.embed_tokens.register_forward_hook(lambda _, args, out: passed.append(args[0].numel()))
    ids, row, position = whole_texts(texts)
    hidden = packed_hidden(model.model, ids, row, position)
    distinct = {tuple(text[:i].tolist()) for text in texts for i in range(1, len(text) + 1)}
    assert len(distinct) <= sum(passed) <= 1.1 * len(distinct) < 0.6 * sum(map(len, texts))
    hook.remove()
    alone = torch.cat([model.model(input_ids=x[None], use_cache=False).last_hidden_state[0] for x in texts])
    torch.testing.assert_close(hidden, alone, rtol=0, atol=1e-6)  # the norms of the family are in float32
    unlike = torch.linspace(-1, 1, alone.numel(), dtype=alone.dtype).view_as(alone)
    trained = list(model.model.parameters())
    mine, true = (torch.autograd.grad((x * unlike).sum(), trained) for x in (hidden, alone))
    scale = max(float(g.abs().max()) for g in true)
    assert max(float((a - b).abs().max()) for a, b in zip(mine, true, strict=True)) < 1e-6 * scale


def test_attention_over_a_forest_is_exact() -> None:
    """In float64, against a mask over all pairs of tokens; heads share keys, and lengths are unlike."""
    texts = [x[: 5 + i] for i, x in enumerate(TEXTS["both"])]
    ids, length = pad_sequence(texts, batch_first=True), np.array([len(x) for x in texts])
    forest = grow(ids.numpy(), length)
    segment, layout = segment_of(forest), lay_out(forest)
    assert len(layout.sizes) > 1 and len(layout.shared) > 4
    mask = torch.tensor(
        [[j in s for j in range(len(forest))] for s in (seen(forest, segment, t) for t in range(len(forest)))]
    )
    g = torch.Generator().manual_seed(2)
    q, k, v = (torch.randn(len(forest), h, 8, generator=g, dtype=torch.float64, requires_grad=True) for h in (4, 2, 2))
    mine = Attention.apply(q, k, v, layout, 0.3)
    scores = torch.einsum("qhd,khd->hqk", q, k.repeat_interleave(2, 1)) * 0.3
    p = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    true = torch.einsum("hqk,khd->qhd", p, v.repeat_interleave(2, 1))
    torch.testing.assert_close(mine, true, rtol=0, atol=1e-12)
    unlike = torch.randn(true.shape, generator=g, dtype=torch.float64)
    for a, b in zip(*(torch.autograd.grad((x * unlike).sum(), (q, k, v)) for x in (mine, true)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


def test_blocks_of_one_form_go_together() -> None:
    """Three groups of equal lengths are one call, and one of other lengths beside them is another."""
    dice = np.random.default_rng(0)

    def group(prompt: int, responses: int, length: int) -> list[np.ndarray]:
        first = dice.integers(6, 41, prompt)
        return [np.concatenate([first, dice.integers(6, 41, length)]) for _ in range(responses)]

    rows = [*group(9, 4, 5), *group(9, 4, 5), *group(9, 4, 5), *group(7, 3, 6)]
    ids, length = np.zeros((len(rows), 14), dtype=np.int64), np.array([len(x) for x in rows])
    for i, x in enumerate(rows):
        ids[i, : len(x)] = x
    forest = grow(ids, length)
    shared = lay_out(forest).shared
    assert sum(s.count for s in shared) == 4 and len(shared) <= 3
    column = torch.arange(len(forest))
    for s in shared:
        for seen_, looking in zip(s.seen(column).tolist(), s.looking(column).tolist(), strict=True):
            assert all(set(seen_) <= seen(forest, segment_of(forest), token) for token in looking)


@pytest.mark.parametrize("causal", [True, False])
def test_what_is_written_out_is_what_the_kernel_does(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(0)
    q, k, v, by = (torch.randn(3, 7, h, 8, generator=g, dtype=torch.float64).transpose(1, 2) for h in (4, 2, 2, 4))
    found = []
    for kind in ("cpu", "plain"):
        monkeypatch.setattr(attention, "_kernel", lambda _, kind=kind: kind)
        out, total = block(q, k, v, causal=causal, scale=0.3)
        found.append((out, total, *block_gradients(by, q, k, v, out + 0.1, total + 0.2, causal=causal, scale=0.3)))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-13)


def branching(batch: Batch) -> Batch:
    """Rows of a group begin with the same four tokens, and two of them with two more."""
    tokens = batch.tokens.clone()
    for group in batch.group.unique():
        rows = (batch.group == group).nonzero()[:, 0]
        tokens[rows, :4] = tokens[rows[0], :4].clone()
        tokens[rows[-2:], 4:6] = tokens[rows[-1], 4:6].clone()
    return batch.replace(tokens=tokens * batch.mask.long())


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(m, marks=[] if i % 15 == 0 else [pytest.mark.heavy], id=m.name)
        for i, m in enumerate(methods().values())
    ],
)
def test_trees_give_every_method_the_gradient_of_rows_alone(method: Method, tiny_model: Any, monkeypatch: Any) -> None:
    recipe = with_all_terms(method)
    monkeypatch.setattr("tests.engine.test_local.token_batch", lambda groups: branching(token_batch(groups, width=12)))
    engine = engine_of(tiny_model, recipe)
    packed(engine)
    batch = drawn(engine, recipe, groups=groups_of(method, (3, 2, 4, 2)))
    truth = naive(engine, recipe, batch)
    for micro_batch in (None, 2):
        engine.micro_batch = micro_batch
        engine.gradient(recipe, batch)
        assert difference(grads(engine), truth) < 1e-6


def packed(engine: LocalEngine) -> None:
    engine.likelihood = split_model(engine.policy.model)
    assert engine.likelihood.packs
    if engine.critic is not None:
        engine.critic.packs = engine.likelihood.packs


def test_rows_that_begin_alike_are_passed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policyopt.models.pieces.MICRO_TOKENS", 30)
    prompts = torch.randint(6, 41, (3, 20), generator=torch.Generator().manual_seed(0))
    rows = [torch.cat([prompts[i % 3], torch.tensor([i])]) for i in range(12)]
    pieces = list(packed_pieces(torch.stack(rows).numpy(), np.full(12, 21)))
    assert sorted(i for piece in pieces for i in piece) == list(range(12))
    assert [len(piece) for piece in pieces] == [4, 4, 4] and all(len({i % 3 for i in piece}) == 1 for piece in pieces)
    assert [len(p) for p in packed_pieces(torch.stack(rows).numpy(), np.full(12, 21), rows=5)] == [5, 5, 2]


def test_layers_that_are_passed_again_attend_as_they_did(tiny_model: Any) -> None:
    batch, found = branching(token_batch(width=12)), []
    for again in (False, True):
        policy = load_tiny(tiny_model, "float64", gradient_checkpointing=again)
        split = policy.likelihood()
        assert split.packs  # type: ignore[attr-defined]
        logp = split.leaves(batch)["logp"]
        found.append(
            torch.autograd.grad(
                (logp * torch.linspace(0, 1, logp.numel()).view_as(logp)).sum(), [p for _, p in policy.trainable()]
            )
        )
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_a_row_of_which_nothing_is_asked_costs_nothing() -> None:
    model, batch = family_model("llama", torch.float64), token_batch((2, 2))
    mask = batch.mask.clone()
    mask[1] = 0
    batch = make_batch(mask=mask, tokens=batch.tokens % 41, prompt=batch.prompt % 41, prompt_mask=batch.prompt_mask)
    passed: list[int] = []
    model.model.embed_tokens.register_forward_hook(lambda _, args, out: passed.append(args[0].numel()))
    split = split_model(model)
    passed.clear()
    found = split.leaves(batch)["logp"]
    mine = passed[:]
    kept = torch.tensor([0, 2, 3])
    torch.testing.assert_close(found[kept], split.leaves(batch[kept])["logp"], rtol=0, atol=1e-6)
    assert mine == passed[1:] and (found[1] == 0).all()
