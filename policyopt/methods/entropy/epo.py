"""EPO."""

from __future__ import annotations

from typing import Literal

from policyopt.methods.critic.ppo import ppo
from policyopt.parts.base import Controller
from policyopt.parts.entropy import EntropyBand
from policyopt.parts.thermostat import TurnHistory, TwoPhases
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(parent=ppo, arxiv="2509.22576", code="WujiangXu/EPO", confidence="code")
def epo(
    entropy_coef: float = 0.001,
    smooth_coef: float = 1.0,
    kappa_low: float = 0.5,
    kappa_high: float = 1.5,
    alpha: float = 0.1,
    max_turns: int = 1,
    max_epochs: int | None = 150,
    level: Literal["token", "sequence"] = "token",
    form: Literal["indicator", "hinge"] = "indicator",
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.0,
    epochs: int = 1,
    minibatches: int = 1,
    group_size: int = 8,
) -> Recipe:
    r"""PPO with an entropy bonus over all turns, less a penalty where entropy leaves a band around its history.

    .. math:: L = L_{PPO} - \lambda\,\big(\overline{H} - c\,w\,\overline{P}\big),\qquad
              P_{i,t} = \alpha\,1[H_{i,t} \notin (\kappa_l\bar H_{u_i}, \kappa_r\bar H_{u_i})]

    lambda = ``entropy_coef``, c = ``smooth_coef``, u_i the turn of row i, H-bar_u its mean entropy over the steps before.
    The weight w falls in two phases over ``max_epochs`` steps (None: it stays 1). As published and coded P is an
    indicator without gradient: what acts is the bonus alone. ``form="hinge"`` is a band that acts. Defaults from the
    authors' scripts, where an episode has 50 turns; with ``max_turns`` 1, for tasks of one turn, the penalty is always
    on. Our reading: the code's weight, which falls, where the text says stronger later; 0 while there is no history.
    """
    phases: tuple[Controller, ...] = (TwoPhases("regularizers.0.phase", max_epochs),) if max_epochs else ()
    band = EntropyBand(
        entropy_coef, smooth_coef, kappa_low, kappa_high, alpha, max_turns=max_turns, level=level, form=form
    )
    return ppo(low, high, kl_coef=kl_coef, epochs=epochs, minibatches=minibatches, group_size=group_size).replace(
        regularizers=(band,), controllers=(TurnHistory(), *phases)
    )
