"""The level of logits, which their distribution does not have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from policyopt.part import Positive, RoleName, Statistic, part


@part
class SoftValue(Statistic):
    r"""The value of a state where a model's logits are a soft Q-function over beta: :math:`V(s) = \beta\log\sum_a e^{Q(s,a)/\beta}`.

    Adding a constant to the logits of a state adds beta times it to V and leaves the policy as it is. Sources: arXiv:2404.12358;
    arXiv:2409.01369 (beta 1).
    """

    beta: Positive = 0.1
    """beta: Q is beta times the logits."""
    of: Literal["policy"] | RoleName = "policy"
    """Whose logits."""

    @property
    def roles(self) -> frozenset[str]:
        """The model, where it is not the policy."""
        return frozenset() if self.of == "policy" else frozenset({self.of})

    def __call__(self, logits: Tensor, target: Tensor, others: Mapping[str, Tensor]) -> Tensor:
        return self.beta * (logits if self.of == "policy" else others[self.of]).logsumexp(-1)
