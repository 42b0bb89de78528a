"""Which recipe is which setting of TRL's preference trainers. One row a loss; a recipe is made when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from policyopt.recipe import Recipe
from policyopt.registry import get_method


@dataclass(frozen=True)
class Same:
    """Two ways to say the same loss."""

    recipe: Callable[[], Recipe]
    given: dict[str, Any]
    """Arguments of TRL's configuration."""


def of(method: str, **hyperparameters: Any) -> Callable[[], Recipe]:
    """A method of the library, when it is asked for."""
    return lambda: get_method(method)(**hyperparameters)


DPO: dict[str, Same] = {
    "sigmoid": Same(of("dpo", beta=0.3), {"beta": 0.3}),
    "robust": Same(
        of("dpo", beta=0.3, label_smoothing=0.2, robust=True),
        {"loss_type": "robust", "beta": 0.3, "label_smoothing": 0.2},
    ),
    "forward-kl": Same(of("dpo", beta=0.3, divergence="forward-kl"), {"beta": 0.3, "f_divergence_type": "forward_kl"}),
    "js": Same(of("dpo", beta=0.3, divergence="js"), {"beta": 0.3, "f_divergence_type": "js_divergence"}),
    "alpha": Same(
        of("dpo", beta=0.3, divergence="alpha", alpha=0.4),  # TRL's coefficient is 1 - alpha
        {"beta": 0.3, "f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.6},
    ),
}
KTO: dict[str, Same] = {}
CPO: dict[str, Same] = {}
ORPO: dict[str, Same] = {}
