"""Is the gradient unbiased off-policy? An answer by enumeration of everything that a tiny policy can write."""

from __future__ import annotations

from functools import cached_property
from itertools import combinations_with_replacement
from typing import Literal

import torch
from torch import Tensor

from policyopt.lens.check.measure import batch_for, policy_part
from policyopt.lens.check.report import Finding, not_applicable
from policyopt.lens.check.weights import credited
from policyopt.lens.random_batch import scores, statistics
from policyopt.objective import objective
from policyopt.recipe import Recipe
from policyopt.rows import Batch, masked

RESPONSES = ((0,), *((a, b) for a in (1, 2) for b in (0, 1, 2)))
"""Three tokens, two steps at most, token 0 ends: seven responses."""
NEAR, FAR = 1e-5, 4.0
"""How far the policy has moved: less than the narrowest clip, and far."""
EXACT = 1e-9

Sampling = Literal["sequence", "token"]


class TinyPolicy:
    """Its logits are the rows of a table [3, 3]: row 0 for the first token, row a after token a."""

    def __init__(self, recipe: Recipe, seed: int, drift: float, sign: float = 1.0) -> None:
        g = torch.Generator().manual_seed(seed)

        def table() -> Tensor:
            return torch.randn(3, 3, generator=g, dtype=torch.float64)

        self.recipe = recipe
        self.theta = table().requires_grad_()
        old = self.theta.detach() + drift * table()
        self.tables = {"policy": self.theta, **dict.fromkeys(("old", "rollout", "proximal"), old)}
        named = sorted(recipe.roles - {"reference", "previous", "teacher"})
        self.tables |= {role: table() for role in ("reference", "previous", "teacher", *named)}
        self.advantage = torch.randn(len(RESPONSES), generator=g, dtype=torch.float64)
        self.advantage = sign * (self.advantage - self.advantage.mean())  # both signs occur
        self.mask = torch.tensor([[1.0, float(len(y) > 1)] for y in RESPONSES], dtype=torch.float64)
        self.tokens = torch.tensor([(y[0], y[-1]) for y in RESPONSES])
        state = torch.tensor([(0, y[0] * (len(y) > 1)) for y in RESPONSES])
        self.logits = {role: x[state] for role, x in self.tables.items()}
        self.logp = {role: scores(self.tokens, self.logits)[name] * self.mask for role, name in
                     (("policy", "logp"), ("old", "old_logp"))}  # fmt: skip
        self.probability = {role: x.sum(-1).exp().detach() for role, x in self.logp.items()}
        self.batch = self._batch()
        self.share = recipe.aggregate(self.batch)

    def _batch(self) -> Batch:
        """The seven responses as answers to one prompt, each with its advantage."""
        n, width = self.mask.shape
        lengths = tuple(int(x) for x in self.mask.sum(-1))
        blank = batch_for(self.recipe, 0, groups=(n,), width=width, lengths=lengths)
        columns = {name: masked(x, self.mask) for name, x in scores(self.tokens, self.logits).items()}
        columns = {name: x for name, x in columns.items() if getattr(blank, name) is not None}
        batch = credited(blank.replace(tokens=self.tokens, **columns), self.advantage)
        found = statistics(self.recipe.live, self.recipe.fixed, batch, self.logits)
        batch = batch.with_statistics({key: masked(x, self.mask) for key, x in found.items()})
        return batch.replace(temperature=torch.ones_like(batch.temperature))

    @cached_property
    def expected(self) -> Tensor:
        """dL/dtheta of the recipe, in expectation over what the old policy writes, [3, 3].

        Responses count by their probability, so a recipe that looks at one response at a time needs each once. Others
        see every pair of two; the shares are those of the seven together either way.
        """
        p, batch = self.probability["old"][:, None], self.batch
        if self.recipe.unit in ("token", "row"):
            return self._gradient(objective(self.recipe, batch.replace(share=self.share * p)))
        pairs = list(combinations_with_replacement(range(len(RESPONSES)), 2))
        twice = torch.tensor([0.5 if i == j else 1.0 for i, j in pairs], dtype=torch.float64)
        left, right = torch.tensor(pairs).T
        chance = (p[left] * p[right] * twice[:, None]).repeat_interleave(2, 0)
        rows = torch.tensor(pairs).flatten()
        batch = batch[rows].replace(share=self.share[rows] * chance, group=torch.arange(len(rows)) // 2)
        pieces = [batch] if self.recipe.unit == "group" else [batch[r] for r in torch.arange(len(batch)).split(2)]
        return self._gradient(torch.stack([objective(self.recipe, piece) for piece in pieces]).sum())

    def wanted(self, sampling: Sampling) -> Tensor:
        """The policy gradient of the same shares and advantages, from exact probabilities, [3, 3].

        "sequence": responses come from the new policy. "token": each token does, but what leads up to it and what
        follows comes from the old one; that is the gradient of the token-level surrogate, which agrees with the other
        to first order in how far the policy has moved.
        """
        ratio = (self.logp["policy"] - self.logp["old"]).exp().detach()
        new, old = self.probability["policy"][:, None], self.probability["old"][:, None]
        chance = new if sampling == "sequence" else old * ratio
        weight = self.share * chance * self.advantage[:, None]
        return self._gradient(-(weight * self.logp["policy"]).sum())

    def _gradient(self, loss: Tensor) -> Tensor:
        if loss.grad_fn is None:
            return torch.zeros_like(self.theta)
        return torch.autograd.grad(loss, self.theta, retain_graph=True)[0]

    def bias(self, sampling: Sampling, factor: float = 1.0) -> float:
        """The error of the expected gradient, relative to the wanted one times ``factor``."""
        wanted = factor * self.wanted(sampling)
        return float((self.expected - wanted).norm() / wanted.norm())


def off_policy(recipe: Recipe) -> Finding:
    """Whose gradient the recipe's is in expectation when another policy sampled, with a fixed advantage per response.

    "sequence": unbiased for the new policy. "token": unbiased for the token-level surrogate, which is right to first
    order. "near" either: only while the policy has hardly moved (inside the clip bounds). "on-policy": only where the
    two policies are one. The gradient compared with has the recipe's own shares: where they depend on the length, that
    is its length bias, and not counted here. Regularisers are left out.
    """
    key, name = "off-policy", "unbiased, sampled by another policy"
    alone = policy_part(recipe)
    still = TinyPolicy(alone, 0, 0.0)
    got, wanted = still.expected, still.wanted("sequence")
    if torch.equal(got, TinyPolicy(alone, 0, 0.0, sign=-1.0).expected):
        return not_applicable(key, name, "the expected gradient does not depend on the advantage")
    factor = float((got * wanted).sum() / (wanted * wanted).sum())
    start = still.bias("sequence", factor) if factor > 0 else 1.0
    if start > EXACT:
        return Finding(key, name, "no, not even on-policy", "no", start, "relative error on-policy")
    near = TinyPolicy(alone, 0, NEAR)
    far = [TinyPolicy(alone, seed, FAR) for seed in range(3)]
    words: dict[Sampling, str] = {"sequence": "for whole responses", "token": "token by token"}
    errors = {sampling: max(policy.bias(sampling, factor) for policy in far) for sampling in words}
    note = "relative error far off-policy"
    for sampling, how in words.items():
        if errors[sampling] < EXACT:
            return Finding(key, name, f"yes, {how}", sampling, errors[sampling], note)
    for sampling, how in words.items():
        if near.bias(sampling, factor) < NEAR / 100:
            return Finding(key, name, f"{how}, while ratios are near 1", f"~{sampling}", errors[sampling], note)
    return Finding(key, name, "only on-policy", "on-policy", errors["sequence"], note)
