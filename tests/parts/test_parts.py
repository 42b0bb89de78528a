"""What every part and every objective must do, whatever its formula is."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from policyopt.control import MovingAverage, Schedule
from policyopt.methods.critic.ppo import AdaptiveKL
from policyopt.methods.group.grpo import StepNormalise
from policyopt.methods.ratio.gspo import gspo
from policyopt.objective import kept, objective
from policyopt.parts import (
    Advantage,
    Aggregate,
    Bounds,
    ClippedValueLoss,
    Controller,
    Critic,
    Filter,
    KLPenalty,
    Link,
    MixedOutcomes,
    Normalise,
    Part,
    PPOClip,
    Ratio,
    Regularizer,
    SequenceRatio,
    SequenceRatioPerToken,
    Shape,
    Surrogate,
    TokenRatio,
    TruncatedRatio,
    Weight,
)
from policyopt.parts.advantage.gae import GAE, gae
from policyopt.parts.regularizer.kl import kl_estimate
from policyopt.recipe import Recipe
from policyopt.registry import Method
from policyopt.rows import Batch, make_batch
from policyopt.steering import control
from tests.batches import (
    BUDGET,
    EVERY_METHOD,
    LEAVES,
    LIBRARY_PARTS,
    columns,
    gradients,
    held,
    poisoned,
    random_batch,
    ready,
    with_all_terms,
    with_statistics,
)

SLOTS = (Shape, Filter, Advantage, Ratio, Surrogate, Weight, Aggregate, Regularizer, Critic)


def combinations(cls: type[Part]) -> list[Part]:
    """The part with its defaults, in all combinations of its choices."""
    hints = get_type_hints(cls)
    fields = getattr(cls, "__dataclass_fields__", {})
    choices = {name: get_args(hints[name]) for name in fields if get_origin(hints[name]) is Literal}
    choices |= {name: (False, True) for name in fields if hints[name] is bool}
    for name, kind in ((name, hints[name]) for name in fields if hints[name] in (Bounds, Link)):
        choices[name] = tuple(p for c in LIBRARY_PARTS.values() if issubclass(c, kind) for p in combinations(c))
    return [cls(**dict(zip(choices, values, strict=True))) for values in itertools.product(*choices.values())]


def variants(cls: type[Part]) -> list[Part]:
    """All combinations, or where there are many those with at most two choices other than the first."""
    every = combinations(cls)
    if len(every) <= 64:
        return every
    first = dataclasses.asdict(every[0])
    return [p for p in every if sum(value != first[name] for name, value in dataclasses.asdict(p).items()) <= 2]


PARTS = [p for cls in LIBRARY_PARTS.values() if issubclass(cls, SLOTS) for p in variants(cls)]


def over(parts: Sequence[Part]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A test of one part as a test for each class of some parts, which goes through all of that class."""
    of: dict[type[Part], list[Part]] = {}
    for part in parts:
        of.setdefault(type(part), []).append(part)

    def decorated(test: Callable[..., None]) -> Callable[..., None]:
        others = [p for name, p in inspect.signature(test).parameters.items() if name != "part"]

        def each(cls: type[Part], **given: Any) -> None:
            for part in of[cls]:
                try:
                    test(part=part, **given)
                except BaseException as error:
                    error.add_note(repr(part))
                    raise

        each.__name__, each.__doc__ = test.__name__, test.__doc__
        each.pytestmark = getattr(test, "pytestmark", [])  # type: ignore[attr-defined]
        cls = inspect.Parameter("cls", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        each.__signature__ = inspect.Signature([cls, *others])  # type: ignore[attr-defined]
        return pytest.mark.parametrize("cls", list(of), ids=[c.__name__ for c in of])(each)

    return decorated


EVERY_PART = over(PARTS)
TOKEN_LOSSES = (Ratio, Surrogate, Weight, Regularizer, Critic)


@functools.cache
def batch_with_credit(seed: int = 0, **changes: Any) -> Batch:
    """Made once for all parts, none of which may change it."""
    batch = random_batch(seed, **changes)
    g = torch.Generator().manual_seed(seed + 1)
    names = ("advantage", "returns", "token_reward")
    return batch.replace(
        **{name: torch.randn(batch.mask.shape, generator=g).to(batch.mask) * batch.mask for name in names}
    )


def outputs(part: Part, batch: Batch) -> list[Tensor]:
    """What a part makes of a batch: tensors [N] or [N, T]; padding, which is nobody's business but theirs, as zeros."""
    batch = with_statistics(part, batch)
    if isinstance(part, Advantage | Aggregate):  # they promise the zeros themselves
        return [part(batch)]
    if isinstance(part, Shape):
        after = part(batch)
        found = [after.reward, torch.zeros_like(batch.mask) if after.token_reward is None else after.token_reward]
    elif isinstance(part, Surrogate | Weight):
        log_ratio = TokenRatio()(batch)
        found = [part(log_ratio, batch), *part.metrics(log_ratio, batch).values()]
    elif isinstance(part, Critic):
        found = [part.target(batch), part(batch)]
    else:
        found = [part(batch)]  # type: ignore[operator]
    found = [x.expand(len(batch.mask)) if x.dim() == 0 else x for x in found]  # one number for all rows
    return [torch.where(batch.mask.bool(), x, 0.0) if x.dim() == 2 else x.double() for x in found]


def assert_same(got: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


# Documentation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", LIBRARY_PARTS.values(), ids=LIBRARY_PARTS.keys())
def test_a_part_and_each_of_its_fields_are_documented(cls: type[Part]) -> None:
    assert cls.__doc__
    assert not cls.__doc__.startswith(f"{cls.__name__}("), "the signature that a dataclass writes is no documentation"
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body  # type: ignore[attr-defined]
    for node, after in itertools.zip_longest(body, body[1:]):
        if isinstance(node, ast.AnnAssign) and "ClassVar" not in ast.unparse(node.annotation):
            text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            assert text, f"{cls.__name__}.{ast.unparse(node.target)} has no docstring"


def test_all_kinds_of_parts_are_tried() -> None:
    for slot in SLOTS:
        assert any(isinstance(p, slot) for p in PARTS), slot


# Every part on a batch -----------------------------------------------------------------------------------------------


@EVERY_PART
@pytest.mark.parametrize("gaps", [False, True], ids=["", "with text of others"])
def test_a_part_never_reads_padding(part: Part, gaps: bool) -> None:
    batch = batch_with_credit(gaps=gaps)
    clean, width = outputs(part, batch), batch.mask.shape[1]
    for poison in (float("nan"), float("inf"), 1e6):
        got = outputs(part, poisoned_with_credit(poison, gaps))
        assert_same([x[:, :width] if x.dim() == 2 else x for x in got], clean)
        assert all(not x[:, width:].any() for x in got if x.dim() == 2), poison


@functools.cache
def poisoned_with_credit(poison: float, gaps: bool) -> Batch:
    return poisoned(batch_with_credit(gaps=gaps), poison, extra=3)


def test_no_part_changes_the_batch_that_it_reads() -> None:
    """They all read the same one."""
    for part in PARTS:
        outputs(part, batch_with_credit())
    fresh = batch_with_credit.__wrapped__()
    for name, x in columns(batch_with_credit()):
        assert torch.equal(x.nan_to_num(7.0), dict(columns(fresh))[name].nan_to_num(7.0)), name


@EVERY_PART
def test_the_order_of_rows_is_of_no_account_to_a_part(part: Part) -> None:
    batch = batch_with_credit()
    order = torch.randperm(9, generator=torch.Generator().manual_seed(3))
    assert_same(outputs(part, batch[order]), [x[order] for x in outputs(part, batch)])


@EVERY_PART
def test_a_part_may_be_computed_on_the_unit_that_it_names(part: Part) -> None:
    batch = batch_with_credit()
    if isinstance(part, Critic):  # the target is made when the batch is drawn; only the loss is split

        def compute(b: Batch) -> list[Tensor]:
            return outputs(part, b)[1:]
    else:

        def compute(b: Batch) -> list[Tensor]:
            return outputs(part, b)

    pieces = {"batch": [torch.arange(9)], "group": [batch.group == g for g in range(3)]}
    for rows in pieces.get(part.unit, [torch.tensor([i]) for i in range(9)]):
        assert_same(compute(batch[rows]), [x[rows] for x in compute(batch)])


@over([p for p in PARTS if isinstance(p, TOKEN_LOSSES) and p.unit == "token"])
def test_a_part_of_token_unit_reads_no_other_token(part: Part) -> None:
    batch = batch_with_credit(lengths=(6,) * 9)
    changed = dict(columns(batch))
    for name, x in changed.items():
        if x.shape == batch.mask.shape and name != "mask":
            changed[name] = torch.cat([x[:, :1], x[:, 1:] * 1.7 - 0.3], dim=1)
    last = slice(1, None) if isinstance(part, Critic) else slice(None)
    before, after = outputs(part, batch)[last], outputs(part, make_batch(**changed))[last]
    assert_same([x[:, :1] for x in after], [x[:, :1] for x in before])


@EVERY_PART
def test_a_part_reads_only_what_it_says_it_needs(part: Part) -> None:
    named = {"entropy": "entropy", "ref_logp": "ref_logp", "value": "value", "baseline_reward": "baseline_reward"}
    named |= {"correct": "correct", "formatted": "formatted", "step_reward": "step_reward", "pass_rate": "pass_rate"}
    batch = batch_with_credit()
    given = {name: x for name, x in columns(batch) if name in part.needs or name not in named}
    if "value" not in part.needs:
        given.pop("old_value")
    if not {"step_reward", "step_end"} & part.needs:
        given.pop("step_end")
    assert_same(outputs(part, make_batch(**given)), outputs(part, batch))


@EVERY_PART
def test_rows_without_tokens_and_groups_of_one_stay_finite(part: Part) -> None:
    batch = batch_with_credit(groups=(1, 3, 1), lengths=(0, 4, 0, 2, 6))
    assert all(x.isfinite().all() for x in outputs(part, batch))
    nothing = batch_with_credit(groups=(2,), lengths=(0, 0))
    assert all(x.isfinite().all() for x in outputs(part, nothing))


@EVERY_PART
def test_a_batch_without_rows_gives_no_rows(part: Part) -> None:
    assert all(len(x) == 0 for x in outputs(part, batch_with_credit()[torch.zeros(9, dtype=torch.bool)]))


@over([p for p in PARTS if isinstance(p, Advantage)])
def test_advantages_in_float32_are_those_of_float64(part: Advantage) -> None:
    exact = part(with_statistics(part, random_batch()))
    rough = part(with_statistics(part, random_batch(dtype=torch.float32)))
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough.double(), exact, rtol=1e-4, atol=1e-4)


# Every objective -----------------------------------------------------------------------------------------------------


@EVERY_METHOD
@pytest.mark.parametrize("drift", [0.3, 4e-4], ids=["far", "near"])
def test_the_gradient_is_the_derivative(method: Method, drift: float) -> None:
    check_derivative(with_all_terms(method), drift)


def test_the_gradient_of_the_token_form_of_gspo_is_the_derivative() -> None:
    check_derivative(gspo(level="token"), 4e-4)


def check_derivative(recipe: Recipe, drift: float) -> None:
    batch = ready(recipe, random_batch(seed=5, groups=(3, 2), width=4, drift=drift, gaps=True))

    def loss(*leaves: Tensor) -> Tensor:
        return objective(recipe, batch.replace(**dict(zip(LEAVES, leaves, strict=True))))

    f = held(loss)
    leaves = [getattr(batch, name).clone().requires_grad_() for name in LEAVES]
    f(*leaves)
    assert torch.autograd.gradcheck(f, leaves, eps=1e-7, atol=1e-7, rtol=1e-4)


@EVERY_METHOD
def test_padding_changes_neither_loss_nor_gradient(method: Method) -> None:
    recipe, batch = with_all_terms(method), random_batch(gaps=True)
    width = batch.mask.shape[1]
    loss, wanted = gradients(recipe, ready(recipe, batch))
    for poison in (float("nan"), float("inf"), -1e6):
        wide = ready(recipe, poisoned(batch, poison, extra=4))
        got_loss, got = gradients(recipe, wide)
        torch.testing.assert_close(got_loss, loss, rtol=1e-12, atol=0)
        for name, x in got.items():
            torch.testing.assert_close(x[:, :width], wanted[name], rtol=1e-12, atol=1e-15)
            assert (x[wide.mask == 0] == 0).all()


def test_a_batch_is_made_clean() -> None:
    batch = random_batch()
    dirty = dict(columns(poisoned(batch, float("nan"))))
    for name, x in columns(make_batch(**dirty)):
        torch.testing.assert_close(x, dict(columns(batch))[name], equal_nan=True)


@EVERY_METHOD
def test_the_order_of_rows_changes_nothing(method: Method) -> None:
    recipe, batch = with_all_terms(method), random_batch()
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    loss, wanted = gradients(recipe, ready(recipe, batch))
    got_loss, got = gradients(recipe, ready(recipe, batch[order]))
    torch.testing.assert_close(got_loss, loss, rtol=1e-12, atol=0)
    for name, x in got.items():
        torch.testing.assert_close(x, wanted[name][order], rtol=1e-12, atol=1e-15)


@EVERY_METHOD
def test_pieces_add_up_to_the_whole(method: Method) -> None:
    recipe = with_all_terms(method)
    batch = ready(recipe, random_batch(gaps=True))
    batch = batch.replace(share=recipe.aggregate(batch))
    whole = gradients(recipe, batch)
    if recipe.unit in ("token", "row"):
        for size in (1, 2, 4):
            rows = torch.randperm(9, generator=torch.Generator().manual_seed(size))
            assert_pieces_add_up(recipe, batch, rows.split(size), whole)
    else:
        groups = [(batch.group == g).nonzero()[:, 0] for g in range(3)]
        assert_pieces_add_up(recipe, batch, groups if recipe.unit == "group" else [torch.arange(9)], whole)


def assert_pieces_add_up(
    recipe: Recipe, batch: Batch, pieces: Sequence[Tensor], whole: tuple[Tensor, dict[str, Tensor]]
) -> None:
    (loss, wanted), total = whole, torch.zeros(())
    for rows in pieces:
        part, got = gradients(recipe, batch[rows])
        total = total + part
        for name, x in got.items():
            torch.testing.assert_close(x, wanted[name][rows], rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(total.double(), loss, rtol=1e-10, atol=1e-14)


@EVERY_METHOD
@pytest.mark.parametrize("lengths", [(0, 4, 0, 2, 6), (0, 0, 0, 0, 0)], ids=["some empty", "all empty"])
def test_empty_rows_stay_finite(method: Method, lengths: tuple[int, ...]) -> None:
    recipe = with_all_terms(method)
    batch = random_batch(groups=(3, 2), lengths=lengths)
    loss, got = gradients(recipe, ready(recipe, batch))
    assert loss.isfinite()
    assert all(x.isfinite().all() and (x[batch.mask == 0] == 0).all() for x in got.values())


@EVERY_METHOD
def test_the_share_of_tokens_depends_on_masks_and_lengths_alone(method: Method) -> None:
    aggregate = with_all_terms(method).aggregate
    batch, other = random_batch(seed=0, lengths=(1, 2, 3, 4, 5, 6, 1, 2, 3)), random_batch(seed=9)
    other = other.replace(mask=batch.mask)
    torch.testing.assert_close(aggregate(batch), aggregate(other))
    assert (aggregate(batch)[batch.mask == 0] == 0).all()


# Advantages ----------------------------------------------------------------------------------------------------------

groups_of_rewards = st.lists(
    st.lists(st.floats(-10, 10).map(lambda x: round(x, 3)), min_size=1, max_size=5), min_size=1, max_size=4
)
FEW = settings(max_examples=40, deadline=None, derandomize=True)


def bandit(groups: list[list[float]], dtype: torch.dtype = torch.float64) -> Batch:
    rewards = [r for g in groups for r in g]
    return make_batch(
        mask=torch.ones(len(rewards), 1, dtype=dtype),
        reward=torch.tensor(rewards, dtype=dtype),
        group=torch.tensor([i for i, g in enumerate(groups) for _ in g]),
    )


@settings(FEW, max_examples=200)
@given(groups_of_rewards, st.sampled_from(combinations(Normalise)))
def test_normalise_is_its_formula(groups: list[list[float]], part: Normalise) -> None:
    if part.spread == "mean":
        groups = [[abs(r) for r in g] for g in groups]
    everything = [r for g in groups for r in g]

    def mean(x: list[float]) -> float:
        return sum(x) / len(x)

    def std(x: list[float]) -> float:
        return (sum((r - mean(x)) ** 2 for r in x) / max(1, len(x) - part.ddof)) ** 0.5

    wanted = []
    for g in groups:
        for i, r in enumerate(g):
            others = g[:i] + g[i + 1 :]
            centre = {"none": 0.0, "constant": part.baseline, "batch": mean(everything), "group": mean(g)}
            centre["leave-one-out"] = mean(others) if others else r
            centre["length-weighted"] = mean(g)  # all are equally long here
            spread = std if part.spread == "std" else mean
            scale = {"none": 1.0, "batch": spread(everything) + part.eps, "group": spread(g) + part.eps}
            silent = part.scale != "none" and scale[part.scale] == part.eps and part.spread == "mean"
            wanted.append(0.0 if silent else (r - centre[part.centre]) / scale[part.scale])
    if part.whiten != "none":
        wanted = [(a - mean(wanted)) / max(std(wanted), 1e-4) for a in wanted]
    torch.testing.assert_close(part(bandit(groups))[:, 0].tolist(), wanted, rtol=1e-7, atol=1e-7)


@FEW
@given(groups_of_rewards, st.floats(-5, 5), st.floats(0.1, 10), st.sampled_from(variants(Normalise)))
def test_shift_and_scale_of_rewards(groups: list[list[float]], shift: float, scale: float, part: Normalise) -> None:
    part = Normalise(centre=part.centre, scale=part.scale, ddof=part.ddof, eps=0.0 if part.scale == "none" else 1e-9)
    if part.scale != "none":  # spread that is much larger than eps
        groups = [[*g, g[0] + 1.0, g[0] - 1.0] for g in groups]
    before = part(bandit(groups))
    if part.centre not in ("none", "constant"):
        shifted = part(bandit([[r + shift for r in g] for g in groups]))
        torch.testing.assert_close(shifted, before, rtol=1e-6, atol=1e-6)
    wanted = before if part.scale != "none" else scale * before
    scaled = part(bandit([[r * scale for r in g] for g in groups]))
    torch.testing.assert_close(scaled, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "part",
    [p for p in variants(Normalise) if p.centre in ("group", "leave-one-out") and p.whiten == "none"],
    ids=repr,
)
def test_a_group_without_signal_has_an_advantage_of_exactly_zero(part: Normalise, dtype: torch.dtype) -> None:
    advantage = part(bandit([[0.1] * 7, [1 / 3] * 3, [0.7], [1.0, 0.0]], dtype))
    assert (advantage[:11] == 0).all()
    assert (advantage[11:] != 0).all()


@FEW
@given(groups_of_rewards)
def test_leave_one_out_is_centring_times_g_over_g_less_one(groups: list[list[float]]) -> None:
    batch = bandit([[*g, 0.5] for g in groups])
    size = torch.tensor([len(g) + 1.0 for g in groups for _ in [*g, 0]], dtype=torch.float64)[:, None]
    centred = Normalise(centre="group", scale="none")(batch)
    torch.testing.assert_close(Normalise(centre="leave-one-out", scale="none")(batch), centred * size / (size - 1))


def test_process_rewards_count_from_the_steps_that_are_still_to_end() -> None:
    batch = random_batch(lengths=(6, 4, 5, 3, 2, 6, 4, 2, 6))
    got, steps = StepNormalise()(batch), StepNormalise().normalised(batch)
    for i, t in itertools.product(range(9), range(6)):
        wanted = sum(float(steps[i, j]) for j in range(2) if batch.step_end[i, j] >= t) * float(batch.mask[i, t])
        assert float(got[i, t]) == pytest.approx(wanted, abs=1e-12)


def test_gae_in_its_limits() -> None:
    batch = random_batch(gaps=True).replace(token_reward=random_batch(7).ref_logp)
    for i in range(9):
        mine = batch.mask[i].nonzero()[:, 0].tolist()
        reward = {t: float(batch.token_reward[i, t]) for t in mine}
        reward[mine[-1]] += float(batch.reward[i])
        value = {t: float(batch.old_value[i, t]) for t in mine}
        for k, t in enumerate(mine):
            to_go = sum(reward[u] for u in mine[k:]) - value[t]
            assert float(gae(batch, 1.0, 1.0)[i, t]) == pytest.approx(to_go)
            step = reward[t] + 0.9 * (value[mine[k + 1]] if k + 1 < len(mine) else 0.0) - value[t]
            assert float(gae(batch, 0.9, 0.0)[i, t]) == pytest.approx(step)
    plain = random_batch().replace(old_value=torch.zeros_like(batch.old_value))
    position = plain.mask.flip(-1).cumsum(-1).flip(-1) - 1  # tokens left after this one
    wanted = plain.reward[:, None] * (0.9 * 0.8) ** position * plain.mask
    torch.testing.assert_close(gae(plain, 0.9, 0.8), wanted)


@pytest.mark.parametrize("ddof", [0, 1])
def test_whitened_advantages_have_mean_zero_and_variance_one_over_tokens(ddof: Literal[0, 1]) -> None:
    batch = random_batch(gaps=True)
    tokens = GAE(ddof=ddof, whiten_eps=0.0)(batch)[batch.mask.bool()]
    assert float(tokens.mean()) == pytest.approx(0, abs=1e-12)
    assert float(tokens.var(correction=ddof)) == pytest.approx(1)
    raw = GAE(whiten=False)(batch)[batch.mask.bool()]
    rough = GAE(ddof=ddof, whiten_eps=0.5)(batch)[batch.mask.bool()]
    torch.testing.assert_close(rough, (raw - raw.mean()) / (raw.var(correction=ddof) + 0.5).sqrt())


def test_the_returns_of_a_critic_are_those_before_whitening() -> None:
    batch = random_batch()
    wanted = (gae(batch, 0.9, 0.8) + batch.old_value) * batch.mask
    torch.testing.assert_close(ClippedValueLoss(gamma=0.9, lam=0.8).target(batch), wanted)


# Losses --------------------------------------------------------------------------------------------------------------


def slope(part: Surrogate, log_ratio: Tensor, advantage: Tensor) -> Tensor:
    """Derivative of the surrogate with respect to the log-ratio."""
    x = log_ratio[None].clone().requires_grad_()
    batch = make_batch(mask=torch.ones_like(x).detach(), advantage=advantage[None], logp=x)
    return torch.autograd.grad(part(x, batch).sum(), x)[0][0]


@FEW
@given(st.floats(-4, 4), st.sampled_from([-2.0, -0.5, 0.0, 0.5, 2.0]), st.sampled_from([0.1, 0.2, None]))
def test_the_clipped_surrogate_is_flat_exactly_where_it_says(log_ratio: float, a: float, bound: float | None) -> None:
    ratio = torch.tensor([log_ratio], dtype=torch.float64).exp()
    advantage = torch.tensor([a], dtype=torch.float64)
    got = slope(PPOClip(low=bound, high=bound), ratio.log(), advantage)
    outside = bound is not None and ((a > 0 and ratio > 1 + bound) or (a < 0 and ratio < 1 - bound))
    torch.testing.assert_close(got, torch.zeros_like(got) if outside else -advantage * ratio)


@FEW
@given(st.floats(-5, 5), st.sampled_from([None, 0.2]), st.sampled_from([None, 0.3]))
def test_a_truncated_ratio_stays_within_its_bounds(log_ratio: float, low: float | None, high: float | None) -> None:
    x = torch.tensor([[log_ratio]], dtype=torch.float64)
    weight = float(TruncatedRatio(low=low, high=high)(x, make_batch(mask=torch.ones(1, 1))))
    wanted = float(x.exp())
    wanted = wanted if low is None else max(wanted, 1 - low)
    assert weight == pytest.approx(wanted if high is None else min(wanted, 1 + high))


@pytest.mark.parametrize("part", [PPOClip(low=0.2, high=0.3), TruncatedRatio(low=0.2, high=0.3)], ids=repr)
def test_clipping_is_counted_where_the_sign_of_the_advantage_makes_it_matter(part: PPOClip | TruncatedRatio) -> None:
    ratio = torch.tensor([[0.7, 0.7, 1.0, 1.4, 1.4, 1.25]], dtype=torch.float64)
    advantage = torch.tensor([[1.0, -1.0, 1.0, 1.0, -1.0, 1.0]], dtype=torch.float64)
    found = part.metrics(ratio.log(), make_batch(mask=torch.ones(1, 6), advantage=advantage))
    assert {name: x[0].tolist() for name, x in found.items()} == {
        "clip_fraction/low": [0, 1, 0, 0, 0, 0],
        "clip_fraction/high": [0, 0, 0, 1, 0, 0],
    }


def test_the_larger_error_of_the_critic_counts() -> None:
    old, returns = torch.zeros(1, 4, dtype=torch.float64), torch.tensor([[1.0, 1.0, -1.0, 0.1]], dtype=torch.float64)
    value = torch.tensor([[0.5, 0.1, 0.5, 0.5]], dtype=torch.float64, requires_grad=True)
    batch = make_batch(mask=torch.ones(1, 4), old_value=old, returns=returns, value=value)
    loss = ClippedValueLoss(coef=2.0, clip=0.2)(batch)
    # towards the return and past the bound: clipped, flat. Inside: plain. Away from the return: plain. Past it: plain.
    torch.testing.assert_close(loss.tolist()[0], [0.8**2, 0.9**2, 1.5**2, 0.4**2])
    gradient = torch.autograd.grad(loss.sum(), value)[0]
    torch.testing.assert_close(gradient.tolist()[0], [0.0, 2 * -0.9, 2 * 1.5, 2 * 0.4])
    unbounded = ClippedValueLoss(coef=2.0, clip=None)(batch)
    torch.testing.assert_close(unbounded, (value - returns) ** 2)


def test_a_sequence_ratio_is_the_geometric_mean_of_its_tokens() -> None:
    batch = random_batch(gaps=True)
    log_ratio = batch.logp - batch.old_logp
    for i in range(9):
        mine = batch.mask[i].bool()
        wanted = log_ratio[i][mine].exp().prod() ** (1 / mine.sum())
        for part in (SequenceRatio(), SequenceRatioPerToken()):
            torch.testing.assert_close(part(batch)[i].exp()[mine], wanted.expand(int(mine.sum())))


def softmax(seed: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    theta = torch.randn(6, generator=g, dtype=torch.float64, requires_grad=True)
    return theta, torch.randn(6, generator=g, dtype=torch.float64).log_softmax(-1)


@FEW
@given(st.integers(0, 10_000))
def test_estimators_of_the_kl(seed: int) -> None:
    theta, ref = softmax(seed)
    logp = theta.log_softmax(-1)
    p = logp.exp()
    k1, k2, k3 = (kl_estimate(logp, ref, kind) for kind in ("k1", "k2", "k3"))
    true = (p * (logp - ref)).sum()
    assert (k3 >= 0).all()
    assert (k2 >= 0).all()
    torch.testing.assert_close((p * k1).sum(), true)
    torch.testing.assert_close((p * k3).sum(), true)

    def slope(value: Tensor) -> Tensor:
        return torch.autograd.grad(value, theta, retain_graph=True)[0]

    drawn = p.detach()  # as losses: tokens are drawn from the policy, the gradient goes through logp alone
    torch.testing.assert_close(slope((drawn * k1).sum()), torch.zeros(6, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(slope((drawn * k2).sum()), slope(true))
    torch.testing.assert_close(slope((drawn * k3).sum()), slope((ref.exp() * (ref - logp)).sum()))


def test_a_kl_in_the_reward_adds_to_what_is_there() -> None:
    batch = random_batch()
    once, twice = KLPenalty(coef=0.3)(batch), KLPenalty(coef=0.2)(KLPenalty(coef=0.1)(batch))
    torch.testing.assert_close(twice.token_reward, once.token_reward)
    torch.testing.assert_close(
        once.total_reward(), batch.reward - 0.3 * ((batch.old_logp - batch.ref_logp) * batch.mask).sum(-1)
    )


# Filters and controllers ---------------------------------------------------------------------------------------------


@FEW
@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=5), min_size=1, max_size=5), st.randoms())
def test_only_groups_with_right_and_wrong_answers_are_kept(answers: list[list[bool]], random: Any) -> None:
    rows = [(i, right) for i, g in enumerate(answers) for right in g]
    random.shuffle(rows)
    batch = make_batch(
        mask=torch.ones(len(rows), 1),
        group=torch.tensor([g for g, _ in rows]),
        correct=torch.tensor([float(right) for _, right in rows]),
    )
    assert MixedOutcomes()(batch).tolist() == [len(set(answers[g])) == 2 for g, _ in rows]


def recipe() -> Recipe:
    from policyopt.methods.critic.ppo import ppo

    return ppo(kl_target=6.0)


def run(controller: Controller, series: list[dict[str, float]], path: str) -> list[float]:
    """The field before the first step and after each."""
    now, states = recipe().replace(controllers=(controller,)), {}
    out = [now.get(path)]
    for metrics in series:
        now = control(now, metrics, states)
        out.append(now.get(path))
    return out


@pytest.mark.parametrize(("shape", "quarter"), [("linear", 0.35), ("cosine", 0.3 + 0.1 * 0.5**0.5)])
def test_a_schedule_goes_from_start_to_end_and_stays(shape: Literal["linear", "cosine"], quarter: float) -> None:
    schedule = Schedule(field="surrogate.high", start_value=0.4, end_value=0.2, steps=4, shape=shape)
    values = run(schedule, [{}] * 7, "surrogate.high")[1:]
    assert values[0] == 0.4
    assert values[1] == pytest.approx(quarter)
    assert values[4:] == pytest.approx([0.2] * 3)
    assert values == sorted(values, reverse=True)


def test_an_adaptive_coefficient_moves_towards_the_target_and_not_without_a_measurement() -> None:
    path = "shape.KLPenalty.coef"
    step = {"responses": 1000.0}
    above, below, at = ({"kl/ref_response": kl, **step} for kl in (60.0, 0.0, 6.0))
    values = run(AdaptiveKL(field=path), [{}, above, at, below], path)
    start = recipe().get(path)
    assert values == pytest.approx([start, start, start * 1.02, start * 1.02, start * 1.02 * 0.98])


def test_a_moving_average_never_contains_the_step_that_it_is_used_at() -> None:
    path = "advantage.gamma"
    values = run(MovingAverage(field=path, momentum=0.75), [{}, {"reward/mean": 0.0}, {"reward/mean": 1.0}], path)
    assert values == [1.0, 1.0, 0.75, 0.8125]


def test_filters_of_a_recipe_act_together() -> None:
    from policyopt.methods.clip.dapo import dapo
    from policyopt.methods.clip.gppo_klear import NotTruncated

    batch = random_batch(groups=(2, 3), lengths=(6, 2, 2, 6, 1)).replace(correct=torch.tensor([1.0, 1, 0, 1, 0]))
    both = dapo().replace(filter=(MixedOutcomes(), NotTruncated()))
    assert kept(both, batch).tolist() == [False, False, True, False, True]
    assert int(batch.budget[0]) == BUDGET
