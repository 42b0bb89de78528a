"""One numeric case, worked out by the library: what its expected keys are called here.

A new key in case files is one line in ``KEYS``; :mod:`policyopt.lens.given` reads what a case gives.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from policyopt.control import Follows
from policyopt.lens.given import (
    COLUMNS,
    SERIES,
    Malformed,
    Unsupported,
    build_batch,
    build_logits,
    build_recipe,
    number,
    the_controller,
)
from policyopt.lens.words import vocabulary
from policyopt.objective import advantages, credit, kept, log_ratios, objective, selected, shaped, token_gradients
from policyopt.part import Controller, Part, Statistic
from policyopt.parts import Normalise, SequenceRatio, Shape
from policyopt.parts.advantage.gae import token_rewards
from policyopt.parts.regularizer.kl import kl_estimate
from policyopt.parts.statistic.group import GroupStatistic, from_logits
from policyopt.recipe import Recipe
from policyopt.registry import Entry, Method
from policyopt.rows import FIXED, Batch, make_batch
from policyopt.steering import States, control


class Run:
    """One case: every stage is worked out when an expected key asks for it."""

    def __init__(self, method: Method | Entry, what: str, given: Mapping[str, Any], words: Path | None = None) -> None:
        self.words = vocabulary(method.name, words)
        self.what, self.asked = what, given
        """What the case says, before its words tell it in columns."""
        given = self.given = _told(self.words.given.get(what, dict), given)
        self.params: Mapping[str, Any] = given.get("params") or {}
        self.notes: dict[str, Any] = {}
        """What functions of the words leave for one another."""
        self.columns = {**COLUMNS, **self.words.columns}
        self.whole: Mapping[str, Any] | None = None
        """Every expected key at once, where the case is no batch with a loss."""
        if what in self.words.cases:
            self.whole = _told(self.words.cases[what], given)
            return
        if not isinstance(method, Method):
            raise Unsupported(f"{method.name} is a {method.kind}, whose words have no cases of {what}")
        unknown = [name for name in given if name not in {*self.columns, *SERIES, "group", "params"}]
        if unknown:
            raise Unsupported(f"given {', '.join(unknown)}: no column of this name")
        for name in ("group", *SERIES):
            if not isinstance(given.get(name, []), list):
                raise Malformed(f"given.{name}: expected a list, got {type(given[name]).__name__}")
        self.method, self.recipe = method, build_recipe(method, what, self.params, given, self.words.params)

    def value(self, key: str, expected: Any) -> Any:
        """What the library has for an expected key, as nested lists like ``expected``."""
        if self.whole is not None:
            if key not in self.whole:
                raise Unsupported(f"expects {key}: nothing computes a key of this name")
            got = self.whole[key]
            return got.tolist() if isinstance(got, Tensor) else got
        compute = self.words.keys.get(key) or KEYS.get(key)
        if compute is None:
            raise Unsupported(f"expects {key}: nothing computes a key of this name")
        try:
            got = compute(self)
        except (AttributeError, TypeError) as error:
            if "NoneType" not in str(error) and key not in self.words.keys:
                raise
            raise Unsupported(f"{key} takes a column that the case does not give ({error})") from error
        except KeyError as error:
            raise Unsupported(f"{key} takes {error.args[0]!r}, which the case does not give") from error
        except (ValueError, IndexError, RuntimeError) as error:
            raise Unsupported(f"{key} cannot be worked out: {error}") from error
        if not isinstance(got, Tensor):
            return got
        if got.dim() == 2 and isinstance(expected, list) and not any(isinstance(row, list) for row in expected):
            got = per_row(got, self.batch.mask)
        return got.tolist()

    # Stages, in the order of the training loop

    @cached_property
    def batch(self) -> Batch:
        """All rows, as given."""
        batch = build_batch(self.given, self.params, self.columns)
        if not self.logits:
            return batch
        target = batch.tokens
        if target is not None and batch.logp is None and "policy" in self.logits:
            batch = batch.replace(logp=token_logp(self.logits["policy"], target) * batch.mask)
        said = {self.columns[name][0] for name in self.given if name in self.columns}
        old = self.logits.get("old", self.logits.get("policy"))
        if target is not None and old is not None and "old_logp" not in said:
            batch = batch.replace(old_logp=token_logp(old, target) * batch.mask)
        target = torch.zeros_like(batch.mask, dtype=torch.long) if target is None else target
        found = {FIXED + s.key: self._statistic(s, "old", target, batch) for s in self.recipe.fixed}
        return batch.with_statistics(found | {s.key: self._statistic(s, "policy", target) for s in self.recipe.live})

    @cached_property
    def logits(self) -> dict[str, Tensor]:
        """The next-token logits that the case gives, [N, T, V] by role: "policy", "old", "reference", "teacher"."""
        found = {place: name for name, (place, kind) in self.columns.items() if kind == "logits" and name in self.given}
        if not found:
            return {}
        mask = build_batch(self.given, self.params, self.columns).mask
        return {role: build_logits(name, self.given[name], mask) for role, name in found.items()}

    def _statistic(self, statistic: Statistic, role: str, target: Tensor, batch: Batch | None = None) -> Tensor:
        """A statistic of the distributions of a role (the old policy's are the policy's where they are not given)."""
        own = self.logits.get(role, self.logits.get("policy", self.logits.get("old")))
        if own is None or statistic.roles - self.logits.keys():
            raise Unsupported(f"{type(statistic).__name__} takes distributions that the case does not give")
        if isinstance(statistic, GroupStatistic):
            if batch is None or any(getattr(batch, name) is None for name in statistic.columns):
                raise Unsupported(f"{type(statistic).__name__} takes columns that the case does not give")
            return from_logits(statistic, batch, own, self.logits.get("hidden"))
        others = {name: self.logits[name].flatten(0, 1) for name in statistic.roles}
        return statistic(own.flatten(0, 1), target.flatten(), others).reshape(target.shape)

    def logits_gradient(self) -> Tensor:
        """dL/dlogits of the policy, [N, T, V], through ``logp``, ``entropy`` and the live statistics."""
        with torch.enable_grad():
            logits = self.logits["policy"].requires_grad_()
            target = (
                torch.zeros_like(self.batch.mask, dtype=torch.long) if self.batch.tokens is None else self.batch.tokens
            )
            leaves = {s.key: self._statistic(s, "policy", target) for s in self.recipe.live}
            if self.batch.tokens is not None:
                leaves["logp"] = token_logp(logits, target)
            found = torch.autograd.grad(
                [leaves[name] for name in leaves], logits, [self.gradient(name) for name in leaves], allow_unused=True
            )[0]
        return torch.zeros_like(logits) if found is None else found

    @cached_property
    def shaped(self) -> Batch:
        """All rows, their rewards shaped."""
        return shaped(self.recipe.replace(shape=self._fed(self.recipe.shape)), self.batch)

    @cached_property
    def keep(self) -> Tensor:
        """Which rows the filters let through."""
        rules = self._fed(self.recipe.filter)
        return kept(self.recipe.replace(filter=rules), self.shaped if rules else self.batch)

    @cached_property
    def used(self) -> Tensor:
        """Which rows go on to the update: those that the filters let through and the selection, which sees advantages."""
        rules = self._fed(self.recipe.select) if self.batch.advantage is None else ()
        used = self.keep.clone()
        used[self.keep] = selected(self.recipe.replace(select=rules), self._credited)
        return used

    @cached_property
    def credited(self) -> Batch:
        """The rows of the update, with advantage and returns; a given column goes before a computed one."""
        return self._credited[self.used[self.keep]]

    @cached_property
    def _credited(self) -> Batch:
        if self.batch.advantage is None:
            batch = credit(self.loss_recipe, self.shaped[self.keep])
        else:
            batch = self.batch[self.keep]
            if self.loss_recipe.critic is not None and batch.returns is None:
                batch = batch.replace(returns=self.loss_recipe.critic.target(batch))
        return batch if self.batch.returns is None else batch.replace(returns=self.batch.returns[self.keep])

    @cached_property
    def loss_recipe(self) -> Recipe:
        """The recipe without the losses whose columns the case does not give."""
        recipe = self.recipe.replace(
            weight=self._fed(self.recipe.weight), regularizers=self._fed(self.recipe.regularizers)
        )
        return without_critic(recipe) if self.batch.value is None and self.batch.advantage is not None else recipe

    @cached_property
    def result(self) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its gradient with respect to each leaf that the case gives."""
        names = [name for name in ("logp", "entropy", "value") if getattr(self.batch, name) is not None]
        leaves = {name: getattr(self.credited, name) for name in names}
        leaves |= {s.key: self.credited.stat(s) for s in self.recipe.live if self.credited.members("statistic")}
        return token_gradients(self.loss_recipe, self.credited, leaves)

    @cached_property
    def log_ratio(self) -> Tensor:
        """The recipe's log-ratio on the rows that are kept."""
        return log_ratios(self.loss_recipe, self.credited)

    def part(self, slot: str) -> Any:
        """What stands at a path of the recipe, such as ``"weight.TierWeight"``."""
        return self.recipe.get(slot)

    @cached_property
    def trajectory(self) -> list[float]:
        """The field that the controller moves: before the first step, then after each."""
        name = next((name for name in SERIES if name in self.given), None)
        if name is None:
            raise Unsupported(f"a schedule over none of {', '.join(SERIES)}")
        recipe, controller = self.recipe, self.controller
        if not isinstance(controller, Follows):
            raise Unsupported(f"a series, but {type(controller).__name__} follows no metric")
        states: States = {}
        values = [recipe.get(controller.field)]
        for x in self.given[name]:
            metrics = {
                controller.metric: SERIES[name](x),
                "responses": number("params.n_steps", self.params.get("n_steps") or 1),
            }
            recipe = control(recipe, metrics, states)
            values.append(recipe.get(controller.field))
        return values

    @property
    def controller(self) -> Controller:
        """The recipe's controller; what it moves is the schedule."""
        return the_controller(self.recipe)

    def all_rows(self, x: Tensor) -> Tensor:
        """A result on the rows of the update as one on all rows, zero where a row was dropped."""
        out = x.new_zeros((len(self.used), *x.shape[1:]))
        out[self.used] = x
        return out

    def gradient(self, leaf: str) -> Tensor:
        """dL/dleaf on all rows."""
        if leaf not in self.result[1]:
            raise Unsupported(f"a gradient with respect to {leaf}, which the case does not give")
        return self.all_rows(self.result[1][leaf])

    def _fed(self, parts: tuple[Any, ...]) -> tuple[Any, ...]:
        """The parts whose columns the case gives: a case may begin after a stage, or leave out a loss."""

        def has(p: Part) -> bool:
            there = self.batch.members("statistic")
            found = (*(s.key in there for s in p.live), *(FIXED + s.key in there for s in p.fixed))
            return all(found) and all(getattr(self.batch, need, None) is not None for need in p.needs)

        return tuple(p for p in parts if has(p))


def _told(tell: Callable[[Mapping[str, Any]], Mapping[str, Any]], given: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a function of words makes of a case. Raises :class:`Unsupported` where it cannot read it."""
    try:
        return tell(given)
    except KeyError as error:
        raise Unsupported(f"the case gives no {error.args[0]!r}") from error
    except (TypeError, ValueError, IndexError) as error:
        raise Unsupported(f"the case cannot be worked out: {error}") from error


def token_logp(logits: Tensor, target: Tensor) -> Tensor:
    """Log-probability of each token, [N, T], from logits [N, T, V]."""
    return logits.log_softmax(-1).gather(-1, target[..., None])[..., 0]


# Expected keys -------------------------------------------------------------------------------------------------------


def without_critic(recipe: Recipe) -> Recipe:
    """The policy's loss alone, for a batch with advantages: no value function, so no advantage that needs one."""
    return recipe.replace(critic=None, advantage=Normalise(centre="none", scale="none"))


def per_row(x: Tensor, mask: Tensor) -> Tensor:
    """[N, T] as [N] where it is the same on all tokens of a row; NaN, which equals nothing, where it is not."""
    low = torch.where(mask.bool(), x, math.inf).amin(-1)
    high = torch.where(mask.bool(), x, -math.inf).amax(-1)
    same = high - low <= 1e-12 * high.abs().clamp(min=1)
    return torch.where(mask.sum(-1) == 0, 0.0, torch.where(same, high, math.nan))


def _first(parts: Sequence[Any], field: str) -> Any:
    """The first part that has a field."""
    for p in parts:
        if hasattr(p, field):
            return p
    raise Unsupported(f"no part of the recipe has a field {field}")


def _kl(run: Run) -> Tensor:
    """The recipe's estimate of the KL to the reference, summed over a response; of the old policy if it is a reward."""
    usual = run.method()  # says how the KL is estimated where a coefficient of 0 has taken the part away
    shapes, losses = (*run.recipe.shape, *usual.shape), (*run.recipe.regularizers, *usual.regularizers)
    part = _first((*shapes, *losses), "estimator")
    logp = run.batch.old_logp if part in shapes else run.batch.logp
    return (kl_estimate(logp, run.batch.ref_logp, part.estimator) * run.batch.mask).sum(-1)


def _overlong(run: Run) -> Tensor:
    """The length penalty alone."""
    penalty: Shape = _first(run.recipe.shape, "past")
    return penalty(run.batch.replace(reward=torch.zeros_like(run.batch.reward))).reward


def _ratio(run: Run) -> Tensor:
    return log_ratios(run.recipe, run.batch).exp() * run.batch.mask


def _sequence_ratio(run: Run) -> Tensor:
    ratio = run.recipe.ratio
    part = ratio if ratio is not None and ratio.unit == "row" else SequenceRatio()
    return part(run.batch).exp() * run.batch.mask


def _weight(run: Run) -> Tensor:
    """The product of the recipe's weights."""
    log_ratio = log_ratios(run.recipe, run.credited)
    found = torch.ones_like(log_ratio)
    for weight in run.recipe.weight:
        found = found * weight(log_ratio, run.credited)
    return run.all_rows(found * run.credited.mask)


def _advantage_raw(run: Run) -> Tensor:
    """Before whitening."""
    _first([run.recipe.advantage], "whiten")
    return run.all_rows(advantages(run.recipe.set("advantage.whiten", False), run.shaped[run.keep])[run.used[run.keep]])


def _policy_loss(run: Run) -> Tensor:
    return objective(without_critic(run.loss_recipe).replace(regularizers=()), run.credited)


def _value_loss(run: Run) -> Tensor:
    """The critic's loss before its coefficient."""
    critic = dataclasses.replace(_first([run.loss_recipe.critic], "coef"), coef=1.0)
    return (run.loss_recipe.aggregate(run.credited) * critic(run.credited)).sum()


def _step_rewards(run: Run) -> list[list[float]]:
    normalised = _first([run.recipe.advantage], "normalised").normalised(run.batch)
    return [row[there].tolist() for row, there in zip(normalised, run.batch.step_end >= 0, strict=True)]


def _advantage_batches(run: Run) -> list[list[float]]:
    """The advantage of each step's rewards, with the field as it stood at that step."""
    out = []
    for rewards, value in zip(run.given["reward_batches"], run.trajectory, strict=False):
        reward = torch.tensor(rewards, dtype=torch.float64)
        batch = make_batch(mask=torch.ones(len(rewards), 1, dtype=torch.float64), reward=reward)
        out.append(advantages(run.recipe.set(run.controller.field, value), batch)[:, 0].tolist())
    return out


KEYS: dict[str, Callable[[Run], Any]] = {
    # rewards
    "reward": lambda run: run.shaped.reward,
    "shaped_reward": lambda run: run.shaped.total_reward(),
    "token_reward": lambda run: token_rewards(run.shaped),
    "overlong": _overlong,
    "kl": _kl,
    "keep": lambda run: run.keep.double(),
    # advantages
    "advantage": lambda run: run.all_rows(run.credited.advantage),
    "advantage_raw": _advantage_raw,
    "return": lambda run: run.all_rows(run.credited.returns),
    "step_reward_normalised": _step_rewards,
    # ratios and weights
    "ratio": _ratio,
    "sequence_ratio": _sequence_ratio,
    "weight": _weight,
    # losses and gradients
    "loss": lambda run: run.result[0],
    "policy_loss": _policy_loss,
    "value_loss": _value_loss,
    "dloss_dlogp": lambda run: run.gradient("logp"),
    "dloss_dvalue": lambda run: run.gradient("value"),
    "dloss_dentropy": lambda run: run.gradient("entropy"),
    "dloss_dlogits": lambda run: run.logits_gradient(),
    # schedules
    "kl_coef": lambda run: run.trajectory[1:],
    "baseline_used": lambda run: run.trajectory[:-1],
    "baseline_after": lambda run: run.trajectory[-1],
    "advantage_batches": _advantage_batches,
}
"""What a case may expect: a function of the case that gives [N], [N, T], a number or nested lists."""
