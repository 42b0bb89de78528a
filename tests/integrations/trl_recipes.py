"""Which recipe is which setting of TRL's preference trainers. One row a loss; a recipe is made when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from policyopt.methods.preference.dpo import OtherDivergence
from policyopt.parts import Hinge, Likelihood, Logistic, Pairs, RowScore, Side, SquareTo
from policyopt.parts.surrogate.contrast import Link
from policyopt.recipe import Recipe
from policyopt.registry import get_method


@dataclass(frozen=True)
class Same:
    """Two ways to say the same loss."""

    recipe: Callable[[], Recipe]
    given: dict[str, Any]
    """Arguments of TRL's configuration."""
    mismatched: bool = False
    """The batch has every prompt with another one's text too."""


def of(method: str, **hyperparameters: Any) -> Callable[[], Recipe]:
    """A method of the library, when it is asked for."""
    return lambda: get_method(method)(**hyperparameters)


def pairs(link: Link, mean: bool = False, **parts: Any) -> Callable[[], Recipe]:
    """DPO with another loss of a pair, on sums or means of log-ratios."""
    score = RowScore(against="reference", reduce="mean" if mean else "sum")
    return lambda: get_method("dpo")().replace(surrogate=Pairs(score=score, link=link), **parts)


CHOSEN = (Likelihood(coef=1.0, rows=Side(), mean="token"),)
"""TRL's likelihood of the chosen side: the mean over all of its tokens in the batch."""

DPO: dict[str, Same] = {
    "sigmoid": Same(of("dpo", beta=0.3), {"beta": 0.3}),
    "robust": Same(
        of("dpo", beta=0.3, label_smoothing=0.2, robust=True),
        {"loss_type": "robust", "beta": 0.3, "label_smoothing": 0.2},
    ),
    "ipo": Same(of("ipo", tau=0.3, mean=True), {"loss_type": "ipo", "beta": 0.3}),
    "hinge": Same(pairs(Hinge(beta=0.3)), {"loss_type": "hinge", "beta": 0.3}),
    "sigmoid_norm": Same(pairs(Logistic(beta=0.3), mean=True), {"loss_type": "sigmoid_norm", "beta": 0.3}),
    "sft": Same(lambda: get_method("dpo")().replace(surrogate=None, regularizers=CHOSEN), {"loss_type": "sft"}),
    "sigmoid and sft": Same(
        pairs(Logistic(beta=0.3), regularizers=CHOSEN), {"loss_type": ["sigmoid", "sft"], "beta": 0.3}
    ),
    "forward-kl": Same(of("dpo", beta=0.3, divergence="forward-kl"), {"beta": 0.3, "f_divergence_type": "forward_kl"}),
    "js": Same(of("dpo", beta=0.3, divergence="js"), {"beta": 0.3, "f_divergence_type": "js_divergence"}),
    "alpha": Same(
        of("dpo", beta=0.3, divergence="alpha", alpha=0.4),  # TRL's coefficient is 1 - alpha
        {"beta": 0.3, "f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.6},
    ),
    "hinge and js": Same(
        lambda: get_method("dpo")().replace(
            surrogate=Pairs(score=OtherDivergence(divergence="js"), link=Hinge(beta=0.3))
        ),
        {"loss_type": "hinge", "beta": 0.3, "f_divergence_type": "js_divergence"},
    ),
    "exo_pair": Same(
        of("exo", beta=0.3, label_smoothing=0.1), {"loss_type": "exo_pair", "beta": 0.3, "label_smoothing": 0.1}
    ),
    "nca_pair": Same(of("nca", beta=0.3), {"loss_type": "nca_pair", "beta": 0.3}),
    "bco_pair": Same(of("bco", beta=0.3, momentum=None), {"loss_type": "bco_pair", "beta": 0.3}),
    "aot": Same(of("aot", beta=0.3, label_smoothing=0.1), {"loss_type": "aot", "beta": 0.3, "label_smoothing": 0.1}),
    "aot_unpaired": Same(of("aot", beta=0.3, paired=False), {"loss_type": "aot_unpaired", "beta": 0.3}),
    "apo_zero": Same(of("apo_zero", beta=0.3), {"loss_type": "apo_zero", "beta": 0.3}),
    "apo_down": Same(of("apo_down", beta=0.3), {"loss_type": "apo_down", "beta": 0.3}),
    "discopop": Same(of("discopop", beta=0.3, tau=0.05), {"loss_type": "discopop", "beta": 0.3}),
    "use_weighting": Same(of("wpo", beta=0.3), {"beta": 0.3, "use_weighting": True}),
    "ld_alpha": Same(of("ld_dpo", beta=0.3, alpha=0.5), {"beta": 0.3, "ld_alpha": 0.5}),
}
KTO: dict[str, Same] = {
    "kto": Same(
        of("kto", beta=0.3, desirable_weight=1.2, undesirable_weight=0.7),
        {"loss_type": "kto", "beta": 0.3, "desirable_weight": 1.2, "undesirable_weight": 0.7},
        mismatched=True,
    ),
    "apo_zero_unpaired": Same(of("kto", beta=0.3, zero=True), {"loss_type": "apo_zero_unpaired", "beta": 0.3}),
}
CPO: dict[str, Same] = {
    "sigmoid": Same(of("cpo", beta=0.3), {"beta": 0.3}),
    "smoothing": Same(
        lambda: get_method("cpo")().replace(surrogate=Pairs(score=RowScore(), link=Logistic(beta=0.3, smoothing=0.1))),
        {"beta": 0.3, "label_smoothing": 0.1},
    ),
    "hinge": Same(
        lambda: get_method("cpo")().replace(surrogate=Pairs(score=RowScore(), link=Hinge(beta=0.3))),
        {"loss_type": "hinge", "beta": 0.3},
    ),
    "ipo": Same(
        lambda: get_method("cpo")().replace(
            surrogate=Pairs(score=RowScore(reduce="mean"), link=SquareTo(target=5 / 3))
        ),
        {"loss_type": "ipo", "beta": 0.3},
    ),
    "simpo": Same(
        of("simpo", beta=2.0, gamma=0.8), {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.8, "cpo_alpha": 0.0}
    ),
    "simpo beside likelihood": Same(
        of("simpo", beta=2.0, gamma=0.8, alpha=0.5),
        {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.8, "cpo_alpha": 0.5},
    ),
}
ORPO: dict[str, Same] = {
    "orpo": Same(
        lambda: get_method("orpo")(lam=0.3).replace(regularizers=CHOSEN), {"beta": 0.3}
    ),  # TRL's mean is over tokens
}

MISSING = {"sppo_hard"}
"""Losses of TRL's DPOTrainer that no recipe above says."""
