"""What of given pairs passes the model: every prompt once, and nothing that is no text."""

from __future__ import annotations

from pathlib import Path

import torch

from policyopt.engine.local.engine import LocalEngine
from policyopt.methods import dpo
from policyopt.objective import credit
from policyopt.rows import Batch, make_batch
from tests.tiny import load_tiny

LENGTHS = ((3, 60), (41, 8), (25, 26), (1, 90), (70, 33), (12, 12))
PROMPT = 40


def unlike_pairs() -> Batch:
    """Pairs whose sides differ in length by up to ninety times, with prompts of their own."""
    g = torch.Generator().manual_seed(0)
    length = torch.tensor(LENGTHS).flatten()
    n, width = len(length), int(length.max())
    mask = (torch.arange(width) < length[:, None]).double()
    chosen = torch.tensor([1.0, 0.0] * len(LENGTHS)).double()
    prompts = torch.randint(6, 90, (len(LENGTHS), PROMPT), generator=g)
    tokens = torch.randint(6, 90, (n, width), generator=g) * mask.long()
    tokens[1::2, 0] = tokens[::2, 0] + 1  # no pair begins alike: the prompt is all that its sides share
    return make_batch(
        mask=mask,
        tokens=tokens,
        prompt=prompts.repeat_interleave(2, 0),
        prompt_mask=torch.ones(n, PROMPT),
        group=torch.arange(len(LENGTHS)).repeat_interleave(2),
        truncated=torch.zeros(n).double(), budget=torch.full((n,), width), version=torch.zeros(n).long(),
        reward=chosen, chosen=chosen, temperature=torch.ones(n).double(), old_logp=torch.zeros_like(mask),
    )  # fmt: skip


def test_pairs_share_their_prompt_and_are_not_padded(tiny_model: Path) -> None:
    policy, recipe, batch = load_tiny(tiny_model), dpo(), unlike_pairs()
    engine = LocalEngine(policy, recipe)
    passed: list[int] = []
    for model in (policy.model, engine.roles["reference"].model):
        model.get_input_embeddings().register_forward_hook(lambda _, ids, __: passed.append(ids[0].numel()))
    text = len(LENGTHS) * PROMPT + int(batch.mask.sum())
    beside = len(batch) * (PROMPT + batch.mask.shape[1])
    assert text < 0.45 * beside, "rows side by side would be more than half padding and prompts that were read before"

    annotated = engine.annotate(batch, recipe)
    assert len(passed) == 2, "the reference, and the policy before the update"
    engine.gradient(recipe, credit(recipe, engine.prepare(annotated, recipe)))
    assert len(passed) == 3
    for tokens in passed:
        assert text - len(batch) <= tokens < 1.05 * text, "the last token of a response need not be read"


def test_a_pair_is_not_torn_apart_by_small_micro_batches(tiny_model: Path) -> None:
    recipe, batch = dpo(), unlike_pairs()
    batch = batch[torch.randperm(len(batch), generator=torch.Generator().manual_seed(1))]
    engine = LocalEngine(load_tiny(tiny_model), recipe, micro_batch=2)
    for rows in engine._pieces(batch):
        assert len(batch.group[rows].unique()) == 1
