"""What a server makes of token weights is found by asking it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from policyopt.engine.tinker.linear import Linear, find, norm_of
from policyopt.errors import UserError

tinker = pytest.importorskip("tinker", reason="needs tinker (pip install 'policyopt[tinker]')")

Rule = Callable[[str, list[list[float]]], float]
"""The norm of a gradient, from the loss and the weights of every row; the gradient of a token is taken for 1."""


def protocol(loss: str, rows: list[list[float]]) -> float:
    return abs(sum(map(sum, rows)))


def skyrl(loss: str, rows: list[list[float]]) -> float:
    """SkyRL 0.3.0: a row over the sum of its mask, which is its weights in the cross-entropy, and the mean over rows."""
    mask = [max(sum(row), 1e-9) if loss == "cross_entropy" else len(row) for row in rows]
    return abs(sum(sum(row) / m for row, m in zip(rows, mask, strict=True))) / len(rows)


def mean(loss: str, rows: list[list[float]]) -> float:
    return protocol(loss, rows) / len(rows)


def deaf(loss: str, rows: list[list[float]]) -> float:
    return 1.0


class Client:
    """Trains nothing, and reports norms by a rule."""

    def __init__(self, rule: Rule, name: str) -> None:
        self.rule, self.name, self.norm = rule, name, 0.0

    def forward(self, data: list[Any], loss: str) -> Any:
        ones = [[-1.0] * len(d.loss_fn_inputs["target_tokens"].data) for d in data]
        return SimpleNamespace(loss_fn_outputs=[{"logprobs": SimpleNamespace(data=x)} for x in ones])

    def forward_backward(self, data: list[Any], loss: str) -> Any:
        key = "weights" if loss == "cross_entropy" else "advantages"
        self.norm = self.rule(loss, [d.loss_fn_inputs[key].data for d in data])
        return SimpleNamespace(result=lambda: None)

    def optim_step(self, params: Any) -> Any:
        assert params.learning_rate == 0
        return SimpleNamespace(result=lambda: SimpleNamespace(metrics={self.name: self.norm}))


def link() -> Any:
    return SimpleNamespace(sdk=tinker, url="http://here", call=lambda doing, make: make())


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        (protocol, Linear("cross_entropy", measured=True)),
        (skyrl, Linear("importance_sampling", by_length=True, by_rows=True, measured=True)),
        (mean, Linear("cross_entropy", by_rows=True, measured=True)),
    ],
)
def test_a_rule_is_found_and_undone(rule: Rule, found: Linear) -> None:
    client = Client(rule, "some.server/grad_norm")
    assert find(link(), client, 100) == found
    rows = [([1, 2, 3, 4], [0.5, -2.0, 0.25], [-1.0] * 3), ([1, 2], [1.5], [-1.0])]
    client.forward_backward(found.data(tinker.types, rows), found.loss)
    assert client.norm == pytest.approx(protocol("", [weight for _, weight, _ in rows]))


def test_a_server_that_tells_no_norm_is_taken_at_the_word_of_the_protocol() -> None:
    assert find(link(), Client(protocol, "tokens"), 100) == Linear("cross_entropy", measured=False)


def test_a_server_that_is_not_linear_is_refused() -> None:
    with pytest.raises(UserError, match="no weighted sums over tokens"):
        find(link(), Client(deaf, "grad_norm"), 100)


def test_the_norm_before_clipping_is_taken() -> None:
    assert norm_of({"loss:sum": 1.0, "clipped_grad_l2:mean": 2.0, "unclipped_grad_l2:mean": 3.0}) == 3.0
    assert norm_of({"skyrl.ai/mhc_gradient_norm": 1.0, "skyrl.ai/grad_norm": 2.0}) == 2.0
    assert norm_of({"loss:sum": 1.0}) is None
    assert norm_of(None) is None
