"""The reinforcement learning of DeepSeek-V3.2."""

from __future__ import annotations

import math
from typing import Literal

from policyopt.claims import Claim, Effect
from policyopt.methods.group.grpo import grpo
from policyopt.parts import KL, ClipMask, Normalise, SequenceRatio, TokenRatio
from policyopt.recipe import Recipe, Update
from policyopt.registry import method


@method(
    parent=grpo,
    arxiv="2512.02556",
    confidence="secondary",
    claim=Claim(
        "Bad responses that the policy has left behind are masked, and the KL is unbiased: GRPO on off-policy data stays stable.",
        "stale",
        (Effect("drop", "lower", 0.01), Effect("accuracy", "higher", 0.02)),
        ours={"kl-coef": 0.0, "minibatches": 1},
        theirs={"kl-coef": 0.0},
    ),
)
def deepseek_v3_2(
    delta: float | None = 0.5,
    to: Literal["old", "sampler"] = "old",
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.001,
    minibatches: int = 4,
    group_size: int = 8,
) -> Recipe:
    r"""GRPO with an unbiased KL and without the bad responses that the policy has drifted away from.

    .. math:: L = \frac1N\sum_i\frac1{|y_i|}\sum_t M_{i,t}\max(-r_{i,t}A_i, -\mathrm{clip}(r_{i,t})A_i) + \beta\,r_{i,t}\,k3_{i,t},\qquad
              M_{i,t} = 0\ \text{where}\ A_i < 0\ \text{and}\ \frac1{|y_i|}\sum_t\log\frac{\pi_{old}}{\pi_\theta}(y_{i,t}) > \delta

    Off-policy sequence masking: wrong answers that have become unlikely teach little and can upset the policy; good ones always
    count. A masked token keeps its place in the divisor, and its KL. k3 alone has a gradient that grows without bound where the
    policy has become far less likely than the reference; times the ratio it is that of the KL. A_i is the reward minus
    the mean of the group, without deviation. Source: DeepSeek-V3.2, arXiv:2512.02556, eq. 7 to 9, as TRL reports it. The report gives
    neither delta nor beta: delta 0.5 nats per token is the example of TRL (``off_policy_mask_threshold``; slime's
    ``--opsm-delta`` is 1e-4), beta that of DeepSeek-R1, four mini-batches are ours. ``delta`` None masks nothing.

    "old" is what the sampler said of the tokens, so that its mismatch with the trainer counts in the mask, as in the report and in
    TRL; ``to`` "sampler" says the same where another part makes ``old_logp`` the trainer's, which is slime's choice. Keep Routing
    is ``source.routing_replay`` "sampler"; Keep Sampling Mask needs nothing here, since the tokens that a truncated draw leaves
    stand on both sides.
    """
    mask = () if delta is None else (ClipMask(low=-math.expm1(-delta), high=None, ratio=SequenceRatio(to=to)),)
    return grpo(low, high, kl_coef=0.0, group_size=group_size).replace(
        advantage=Normalise(centre="group", scale="none"),
        weight=mask,
        regularizers=(KL(coef=kl_coef, ratio=TokenRatio()),) if kl_coef else (),
        update=Update(minibatches=minibatches),
    )
