"""ReMix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.control import Schedule
from policyopt.methods.critic.ppo import ppo
from policyopt.part import Level, part
from policyopt.parts import Bounds, EntropyBonus, Normalise, PPOClip, Reset
from policyopt.parts.regularizer.kl import KL
from policyopt.recipe import Recipe, Update
from policyopt.registry import method
from policyopt.rows import Batch, held


@part
class ProximalBounds(Bounds):
    r"""Centred where the policy stood when training on the batch began, however old the row is.

    .. math:: [c - \epsilon_{low}, c + \epsilon_{high}],\qquad c = \pi_{prox}(y_{i,t}) / \pi_{old}(y_{i,t})

    On the first update no token is clipped; for fresh rows c is 1. Source: ReMix, arXiv:2507.06892.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"prox_logp"})
    levels: ClassVar[frozenset[Level]] = frozenset({"token"})

    def __call__(self, low: float, high: float, log_ratio: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        centre = self.centre(batch)
        return centre - low, centre + high

    def centre(self, batch: Batch) -> Tensor:
        """c, [N, T]."""
        return held(batch.prox_logp - batch.old_logp).exp()

    def metrics(self, low: Tensor, high: Tensor, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return {"bounds/centre": self.centre(batch)}


@method(
    parent=ppo,
    arxiv="2507.06892",
    confidence="secondary",
    claim=Claim(
        "Earlier batches trained on again make a steep start: as many new responses lead further.",
        "chain_sum",
        (Effect("accuracy", "higher", 0.05),),
        against="grpo",
        both={"steps": 10},
        theirs={"kl-coef": 0.0},
    ),
)
def remix(
    low: float = 0.2,
    high: float = 0.2,
    kl_coef: float = 0.01,
    entropy_coef: float = 0.0,
    switch: int = 50,
    window: int = 2,
    epochs: int = 2,
    group_size: int = 8,
) -> Recipe:
    r"""Train on earlier batches again, first boldly, then not at all.

    .. math:: L = \mathrm{mean}_{tok}\big(-\min(rA, \mathrm{clip}(r, c - \epsilon, c + \epsilon)A)
              + \beta(\lambda\,k3(\pi,\pi_{ref}) + (1-\lambda)\,k3(\pi,\pi_{prev}))\big) - c_H H

    r is policy over the policy that wrote the row, c the same for the policy of the step's start; prev is the policy one
    step before. lambda is 1 for 50 steps, then falls by 0.1 at the beginning of every ten steps to 0.5. After
    ``switch`` steps (reincarnation) the policy becomes the reference, once, and training is on-policy, one pass per
    batch. Off-policy data speed up the start and bias the end. Source: a third-party note; no code is public. beta, c_H
    and epsilon are ours. Our reading: advantages of the group, as in the GRPO variant; the ``window`` earlier batches
    are joined whole, where the paper draws each row from the past with probability 0.4; lambda goes on after the switch.
    """

    def fade(role: str, first: float, last: float) -> Schedule:
        path = f"regularizers.{role}.coef"
        return Schedule(field=path, start_value=first, end_value=last, steps=50, stairs=5, delay=50, label=role)

    def stop(name: str, first: int, last: int) -> Schedule:
        path, delay = f"update.{name}", switch - 1
        return Schedule(field=path, start_value=first, end_value=last, steps=1, delay=delay, whole=True, label=name)

    return ppo(kl_coef=0.0, entropy_coef=entropy_coef, group_size=group_size).replace(
        advantage=Normalise(centre="group", scale="group"),
        surrogate=PPOClip(low=low, high=high, bounds=ProximalBounds()),
        regularizers=(
            KL(coef=kl_coef, target="reference", label="reference"),
            KL(coef=0.0, target="previous", label="previous"),
            *((EntropyBonus(coef=entropy_coef),) if entropy_coef else ()),
        ),
        critic=None,
        reference=Reset(every=switch, times=1),
        update=Update(epochs=epochs, replay=window),
        controllers=(
            fade("reference", kl_coef, kl_coef / 2),
            fade("previous", 0.0, kl_coef / 2),
            stop("replay", window, 0),
            stop("epochs", epochs, 1),
        ),
    )
