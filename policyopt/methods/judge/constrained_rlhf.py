"""Constrained RLHF."""

from __future__ import annotations

from policyopt.methods.critic.ppo import ppo
from policyopt.parts.lagrange import ConstrainedAdvantage, DualDescent
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(parent=ppo, arxiv="2310.04373", code="tedmoskovitz/ConstrainedRL4LMs", confidence="code")
def constrained_rlhf(
    components: tuple[str, ...] = ("correct", "formatted"),
    threshold: tuple[float, ...] = (0.9, 0.9),
    equality: bool = True,
    lr: float = 0.1,
    momentum: float = 0.1,
    max_grad_norm: float | None = 0.5,
    low: float | None = 0.2,
    high: float | None = 0.2,
    epochs: int = 5,
    group_size: int = 8,
) -> Recipe:
    r"""Hold each component of the reward at the point up to which it is a good proxy, and stay close to the reference
    otherwise.

    .. math:: A = \Big(K - \sum_k\mu_k\Big)A^{(0)} + \sum_k\mu_k A^{(k)},\qquad
              \eta_k \leftarrow \eta_k - \alpha\,\mu'(\eta_k)(J_k - \theta_k)

    mu = tanh(eta) (``equality``, xi-PPO) or sigmoid(eta) (mu-PPO); A^(0) is the advantage of closeness, all are
    whitened. ``threshold`` has one theta for each of ``components``: the accuracy and the share of well-formed answers,
    or parts of the verdict by name. Source: arXiv:2310.04373 and the authors' code; alpha, momentum and the bound on
    the dual gradient are theirs. Our reading: the mean over the responses to a prompt takes the place of each of the
    K + 1 critics, and eta starts at 0. The search for the proxy points lies outside of training.
    """
    return ppo(low, high, kl_coef=0.0, epochs=epochs, group_size=group_size).replace(
        advantage=ConstrainedAdvantage(
            components=components, lagrange=(0.0,) * len(components), equality=equality
        ),
        critic=None,
        controllers=(
            DualDescent(
                components=components, threshold=threshold, lr=lr, momentum=momentum, max_grad_norm=max_grad_norm,
                equality=equality,
            ),
        ),
    )  # fmt: skip
