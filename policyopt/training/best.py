"""The best value of a metric so far: what is kept at it, and when a run has waited long enough for a better one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from policyopt.errors import UserError, nearest
from policyopt.training.config import TrainConfig


@dataclass
class Best:
    """The best value that a metric has had, and how long ago."""

    metric: str
    mode: str = "max"
    min_delta: float = 0.0
    value: float | None = None
    step: int = 0
    waited: int = 0
    """Measurements since then, none of which was better by more than ``min_delta``."""

    def see(self, step: int, metrics: Mapping[str, float | None]) -> bool:
        """Take the metrics of a step. Returns whether it is the best step so far; a value that is not finite never is."""
        value = metrics.get(self.metric)
        if value is None:
            return False
        sign = 1.0 if self.mode == "max" else -1.0
        if math.isfinite(value) and (self.value is None or sign * (value - self.value) > self.min_delta):
            self.value, self.step, self.waited = float(value), step, 0
            return True
        self.waited += 1
        return False

    def need(self, option: str, metrics: Mapping[str, float | None]) -> None:
        """Raises :class:`~policyopt.errors.UserError` where the metric is not among those of the log."""
        if self.metric not in metrics:
            raise UserError(
                f"{option} {self.metric}: the log has no such metric; {nearest(self.metric, sorted(metrics))}"
            )


class Watch:
    """What a run watches in its own log: whether to stop, and the model that was best, for which ``keep`` is called.

    A value before the first step is the one to beat, and nothing is kept of it. :meth:`state` belongs in a checkpoint.
    """

    def __init__(self, config: TrainConfig, keep: Callable[[], None]) -> None:
        stopping, checkpoints = config.stopping, config.checkpoints
        self._patience, self._keep, self._ended = stopping.patience, keep, ""
        self._budget = {"tokens": stopping.tokens, "seconds": stopping.seconds}
        self._all: dict[str, Best] = {}
        if stopping.metric is not None:
            self._all["stopping.metric"] = Best(stopping.metric, stopping.mode, stopping.min_delta)
        if checkpoints.best is not None:
            self._all["checkpoints.best"] = Best(checkpoints.best, checkpoints.best_mode)

    def start(self, measured: Mapping[str, float]) -> None:
        """Take what was measured before the first step, under the names of the log.

        Raises :class:`~policyopt.errors.UserError` for a metric of evaluations that these do not have.
        """
        at_the_ends = ("/pass@", "/distinct", "/decode", "/exploitability")
        later = {name: x for name, x in measured.items() if not any(end in name for end in at_the_ends)}
        for option, best in self._all.items():
            if best.metric.startswith("eval/"):
                best.need(f"--{option}", later)
            if best.value is None:  # a resumed run knows better
                best.see(0, later)

    def see(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the metrics of a step. Raises :class:`~policyopt.errors.UserError` for one that no step has."""
        for option, best in self._all.items():
            if step == 1 and "loss" in metrics and not best.metric.startswith("eval/"):
                best.need(f"--{option}", metrics)
            if best.see(step, metrics) and option == "checkpoints.best":
                self._keep()

    def spend(self, **spent: float) -> None:
        """Take how many ``tokens`` and ``seconds`` the run has used up: it ends where that is its budget."""
        for name, most in self._budget.items():
            if most is not None and spent[name] >= most:
                self._ended = f"its budget of {most:,g} {name} is used up"

    def end(self, why: str) -> None:
        """End the run now, for a reason in words."""
        self._ended = why

    @property
    def stop(self) -> str:
        """Why the run should end now, in words; empty where it should not."""
        if self._ended:
            return self._ended
        best = self._all.get("stopping.metric")
        if best is None or best.waited < self._patience:
            return ""
        value = "none was finite" if best.value is None else f"the best is {best.value:.4g} at step {best.step}"
        return f"{best.metric} has not improved in {best.waited} measurements ({value})"

    @property
    def best(self) -> dict[str, Any] | None:
        """Which step ``best/`` is of, for ``summary.json``."""
        best = self._all.get("checkpoints.best")
        return None if best is None else {"metric": best.metric, "value": best.value, "step": best.step}

    def state(self) -> dict[str, Any]:
        """What it remembers, as plain data."""
        return {option: [b.metric, b.value, b.step, b.waited] for option, b in self._all.items()}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Go back to a :meth:`state`; of a metric that was not watched then, nothing is known."""
        for option, best in self._all.items():
            metric, *rest = saved.get(option, [None])
            if metric == best.metric:
                best.value, best.step, best.waited = rest
