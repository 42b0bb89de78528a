r"""How a server makes a gradient of token weights, found by asking it.

The plan needs the gradient :math:`-\sum_{i,t} w_{i,t}\nabla\log\pi(y_{i,t})` of weights of either sign. By the protocol that is the
cross-entropy of weighted tokens, summed. Not every server keeps to it: SkyRL 0.3.0 divides the cross-entropy of a row by the sum of its weights,
so that three times the weight is the same gradient and a negative sum a huge one, and both its losses by the number of rows. What a server
does shows in the norm of the gradient that it reports of an optimiser step, on a model that is thrown away. Where its cross-entropy is not
linear, importance sampling is taken, whose ratio to the log-probabilities of now is 1 and whose gradient is then that of the advantages.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from policyopt.engine.tinker.link import Link
from policyopt.engine.tinker.rows import datum, logprobs
from policyopt.errors import UserError

TOLERANCE = 0.05
"""How far, relatively, two norms may lie apart that should be one: servers compute in 16 bits."""

Loss = Literal["cross_entropy", "importance_sampling"]
LOSSES: tuple[Loss, ...] = ("cross_entropy", "importance_sampling")
Row = tuple[list[int], list[float], list[float]]
"""Ids, the weight of each target, its log-probability."""


@dataclass(frozen=True)
class Linear:
    """What a server is sent for the gradient of token weights."""

    loss: Loss = "cross_entropy"
    by_length: bool = False
    """It divides a row by the number of its targets."""
    by_rows: bool = False
    """It divides by the number of rows."""
    measured: bool = False
    """It was found by asking; otherwise it is what the protocol says."""

    def data(self, types: Any, rows: Sequence[Row]) -> list[Any]:
        """Rows whose gradient on this server is that of the token weights."""
        found = []
        for ids, weight, logp in rows:
            by = (len(weight) if self.by_length else 1) * (len(rows) if self.by_rows else 1)
            scaled = [by * w for w in weight]
            inputs: Mapping[str, list[float]] = {"advantages": scaled, "logprobs": logp}
            found.append(datum(types, ids, **({"weights": scaled} if self.loss == "cross_entropy" else inputs)))
        return found


def norm_of(metrics: Mapping[str, float] | None) -> float | None:
    """The norm of the gradient among what a server reports of an optimiser step, before it was clipped; None where it does not
    say."""
    names = [n for n in metrics or {} if "grad" in n and ("norm" in n or "l2" in n) and "mhc" not in n]
    names.sort(key=lambda n: "unclipped" not in n)
    return float((metrics or {})[names[0]]) if names else None


def find(link: Link, client: Any, vocab: int) -> Linear:
    """How a server makes a gradient of token weights; ``client`` trains a model that is thrown away.

    Raises :class:`~policyopt.errors.UserError` where neither loss is linear in the weights.
    """
    types = link.sdk.types
    ids = [1 + (7 * i) % (vocab - 1) for i in range(9)]
    long = [*ids, *(1 + (5 * i) % (vocab - 1) for i in range(len(ids) - 1))]  # twice as many targets
    data = [datum(types, x, weights=[0.0] * (len(x) - 1)) for x in (ids, long)]
    logp = dict(zip((len(ids), len(long)), logprobs(link.call("score a text", lambda: client.forward(data, "cross_entropy")))))  # fmt: skip

    def row(text: list[int], weight: float = 0.0) -> Row:
        return text, [weight if i == 3 else 0.0 for i in range(len(text) - 1)], logp[len(text)]

    for loss in LOSSES:
        norm = _asker(link, client, Linear(loss))
        one = norm([row(ids, 1.0), row(ids)])
        if one is None or not math.isfinite(one) or not one > 0:
            return Linear()
        if not (_near(norm([row(ids, 3.0), row(ids)]), 3 * one) and _near(norm([row(ids, -1.0), row(ids)]), one)):
            continue
        lengths = norm([row(long, 1.0), row(ids)])
        numbers = norm([row(ids, 1.0), row(ids), row(ids)])
        found = Linear(loss, _near(lengths, one / 2), _near(numbers, one * 2 / 3), measured=True)
        if (found.by_length or _near(lengths, one)) and (found.by_rows or _near(numbers, one)):
            return found
    raise UserError(
        f"--base-url {link.url}: the gradients of this server are no weighted sums over tokens (neither of {' and '.join(LOSSES)} is linear in "
        "the weights), so no method here can be trained on it"
    )


def _asker(link: Link, client: Any, linear: Linear) -> Callable[[Sequence[Row]], float | None]:
    types = link.sdk.types

    def norm(rows: Sequence[Row]) -> float | None:
        def step() -> Any:
            back = client.forward_backward(linear.data(types, rows), linear.loss)
            stepped = client.optim_step(types.AdamParams(learning_rate=0.0, grad_clip_norm=0.0))
            back.result()
            return stepped.result()

        return norm_of(link.call("take a step", step).metrics)

    return norm


def _near(found: float | None, wanted: float) -> bool:
    return found is not None and abs(found - wanted) <= TOLERANCE * wanted
