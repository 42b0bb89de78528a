"""AEPO."""

from __future__ import annotations

from policyopt.methods.group.grpo import grpo
from policyopt.parts import PPOClip, TokenMean
from policyopt.parts.auxiliary import ReplaceByAuxiliary, RewardedAuxiliary
from policyopt.parts.thermostat import Thermostat
from policyopt.recipe import Recipe, Update
from policyopt.registry import method
from policyopt.rollout.auxiliary import GroupWithAuxiliary


@method(parent=grpo, arxiv="2510.08141", code="597358816/AEPO", confidence="code")
def aepo(
    entropy_target: float = 0.5,
    t_high: float = 1.2,
    t_low: float = 0.8,
    n_reinforce: int = 60,
    select_threshold: float = 0.05,
    strength: float = 1.0,
    every: int = 4,
    low: float | None = 0.2,
    high: float | None = 0.2,
    dual: float | None = 3.0,
    minibatches: int = 1,
    group_size: int = 8,
) -> Recipe:
    r"""GRPO whose entropy is held at a target by imitating rewarded answers of a hotter or a colder copy of the policy.

    .. math:: \nabla J = \nabla J_{GRPO} + \alpha\,\mathbb E_{o\sim\pi^T}[R(o)\,\nabla\log\pi_\theta(o)],\qquad
              T = T_{high}\ (\hat H \le H_0),\quad T_{low}\ (\hat H > H_0)

    One prompt in ``every`` is answered at temperature T as well. Of these rows the rewarded ones (group advantage above
    ``select_threshold``), at most ``n_reinforce``, half as many while cooling, get advantage ``strength`` and replace as
    many rows of the batch, after the advantages of full groups; they are scored at the main temperature. The loss is
    dual-clip PPO over the token mean. H is the log's ``entropy`` of the step before, T its ``control/rollout.auxiliary_temperature``.
    Defaults from the authors' code, where groups have 5 rows and 60 rows are 2 % of the batch. Our reading: alpha is the share of replaced
    rows, as in the code; H is the exact entropy at sampling, where the code has its estimate from sampled tokens.
    """
    return grpo(kl_coef=0.0, group_size=group_size).replace(
        rollout=GroupWithAuxiliary(size=group_size, auxiliary_temperature=t_high, every=every),
        advantage=RewardedAuxiliary(constant=strength, threshold=select_threshold),
        select=(ReplaceByAuxiliary(limit=n_reinforce),),
        surrogate=PPOClip(low, high, dual=dual),
        aggregate=TokenMean(),
        update=Update(minibatches=minibatches),
        controllers=(
            Thermostat("rollout.auxiliary_temperature", entropy_target, below=t_high, above=t_low),
            Thermostat("select.0.share", entropy_target, below=1.0, above=0.5),
        ),
    )
