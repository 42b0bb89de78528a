"""What is measured on recipes and parts, against what is known of them; and what a broken part is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from rich.console import Console
from torch import Tensor

from policyopt import schema
from policyopt.lens.check import Finding, Report, check
from policyopt.lens.check.derivative import TOLERANCE, derivative_error
from policyopt.lens.check.parts import faults, remarks
from policyopt.lens.check.render import COLUMNS, markdown, rows, show
from policyopt.lens.check.rewards import no_signal, reward_scale
from policyopt.lens.check.unbiased import off_policy
from policyopt.lens.check.weights import reinforce_on_policy
from policyopt.lens.random_batch import declared, random_batch
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.methods.group.grpo import grpo
from policyopt.methods.ratio.gspo import gspo
from policyopt.part import Part, Unit, part
from policyopt.parts import Advantage, LogProb, Normalise, Ratio, RatioTimesAdvantage, Surrogate
from policyopt.recipe import Recipe
from policyopt.registry import Method, get_method, methods
from policyopt.rows import Batch, masked
from tests.batches import COVERING_METHODS, LIBRARY_PARTS
from tests.commands import Said

Command = Callable[..., Said]
PAGE = Path(__file__).parents[2] / "docs" / "properties.md"


@cache
def report(name: str) -> Report:
    return check(get_method(name)())


# Every method and every part of the library --------------------------------------------------------------------------


@COVERING_METHODS
def test_every_method_is_sound_and_has_every_property_as_the_page_says(method: Method) -> None:
    found = report(method.name)
    assert not found.broken, (found.faults, [f for f in found.findings if f.broken])
    assert {f.key for f in found.findings} >= COLUMNS.keys() - {"sound"}
    assert not [f for f in found.findings if "raises" in f.note]
    assert all(f.note for f in found.findings if f.value == "n/a"), "n/a has a reason"
    row = markdown([found]).splitlines()
    mine = next(line for line in row if line.startswith(f"| {method.name} |"))
    assert mine in PAGE.read_text().splitlines(), "policyopt list --properties --markdown > docs/properties.md"


def test_the_page_of_properties_lists_the_methods_and_no_others() -> None:
    table = [line.split(" | ")[0].strip("| ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    assert table[2:] == list(methods())


@pytest.mark.parametrize("cls", LIBRARY_PARTS.values(), ids=LIBRARY_PARTS.keys())
def test_no_part_of_the_library_is_called_broken(cls: type[Part]) -> None:
    try:
        made = cls()
    except (TypeError, ValueError):
        pytest.skip("has fields without a default")
    assert faults(made) + remarks(made) == []


# Known truths --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "slope"), [("grpo", -1.0), ("gspo", -1.0), ("dr-grpo", 0.0), ("luspo", 0.0), ("dapo", 0.0), ("rloo", 0.0)]
)
def test_length_bias(name: str, slope: float) -> None:
    assert (report(name)["len+"].number, report(name)["len-"].number) == (slope, slope)


def test_an_advantage_that_fades_with_the_length_is_noted() -> None:
    assert "the advantage itself goes with |y|^-" in report("ppo")["len+"].note
    assert "the advantage" not in report("grpo")["len+"].note


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("ppo", ["vanishes", "vanishes", "vanishes", "grows"]),
        ("grpo", ["vanishes", "vanishes", "vanishes", "grows"]),
        ("gspo", ["vanishes", "vanishes", "vanishes", "grows"]),
        ("cispo", ["vanishes", "bounded", "vanishes", "bounded"]),
        ("reinforce", ["bounded"] * 4),
    ],
)
def test_weights_at_extreme_ratios(name: str, limits: list[str]) -> None:
    assert [report(name)[key].value for key in ("+0", "+inf", "-0", "-inf")] == limits


def test_a_truncated_ratio_is_bounded_by_its_bound() -> None:
    assert report("cispo")["+inf"].number == pytest.approx(1.28)
    assert report("cispo")["-inf"].number == pytest.approx(1.28)


@pytest.mark.parametrize(
    ("name", "shift", "scale"),
    [
        ("grpo", "yes", "inv"),
        ("dr-grpo", "yes", "lin"),
        ("rloo", "yes", "lin"),
        ("reinforce", "no", "lin"),
        ("ppo", "no", "no"),
        ("dapo", "-", "-"),
    ],
)
def test_shift_and_scale_of_the_reward(name: str, shift: str, scale: str) -> None:
    assert (report(name)["shift"].short, report(name)["scale"].short) == (shift, scale)


def test_where_the_reward_is_replaced_its_shift_means_nothing() -> None:
    assert report("dapo")["shift"].note == "Correctness puts another reward in the place of the judge's"


def test_what_an_eps_does_to_the_scale_is_in_the_number() -> None:
    recipe = grpo(kl_coef=0.0).replace(advantage=Normalise(eps=1e-4))
    assert 1e-5 < (reward_scale(recipe).number or 0) < 1e-3
    recipe = grpo(kl_coef=0.0).replace(advantage=Normalise(eps=0.1))
    assert reward_scale(recipe).short == "no"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("grpo", "no gradient"),
        ("dapo", "no gradient"),
        ("reinforce", "gradient where all are right"),
        ("rloo", "gradient, whatever the reward"),  # the KL in the reward
        ("ppo", "gradient"),
    ],
)
def test_groups_of_equal_rewards(name: str, value: str) -> None:
    assert report(name)["dead"].value == value


def test_without_its_kl_rloo_learns_nothing_from_equal_rewards() -> None:
    assert no_signal(get_method("rloo")(kl_coef=0.0)).short == "0"


@part
class Doubled(Surrogate):
    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return -2 * log_ratio.exp() * batch.advantage


@part
class OnlyGood(Surrogate):
    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return -log_ratio.exp() * batch.advantage.clamp(min=0)


def test_the_gradient_at_ratio_1() -> None:
    assert {report(name)["on-policy"].short for name in ("grpo", "gspo", "ppo", "cispo", "reinforce")} == {"yes"}
    assert reinforce_on_policy(grpo().replace(surrogate=Doubled())).short == "x2"
    assert reinforce_on_policy(grpo().replace(surrogate=OnlyGood())).short == "no"


@part
class WholeRatio(Ratio):
    """The probability of the whole response, new over old, with the gradient of each token."""

    unit: ClassVar[Unit] = "row"

    def __call__(self, batch: Batch) -> Tensor:
        log_ratio = masked(batch.logp - batch.old_logp, batch.mask)
        return log_ratio.sum(-1, keepdim=True).detach() + log_ratio - log_ratio.detach()


@part
class Coupled(RatioTimesAdvantage):
    unit: ClassVar[Unit] = "batch"


@part
class CoupledInGroups(RatioTimesAdvantage):
    unit: ClassVar[Unit] = "group"


@pytest.mark.parametrize(
    ("recipe", "short"),
    [
        (reinforce(), "on-policy"),
        (reinforce().replace(surrogate=RatioTimesAdvantage()), "token"),
        (reinforce().replace(surrogate=Coupled()), "token"),  # the same, found by enumerating pairs
        (reinforce().replace(surrogate=CoupledInGroups()), "token"),
        (reinforce().replace(surrogate=RatioTimesAdvantage(), ratio=WholeRatio()), "sequence"),
        (reinforce().replace(surrogate=OnlyGood()), "no"),
        (grpo(), "~token"),
        (grpo(low=None, high=None), "token"),
        (get_method("cispo")(), "~token"),
        (gspo(), "on-policy"),
    ],
)
def test_what_the_gradient_is_unbiased_for(recipe: Recipe, short: str) -> None:
    assert off_policy(recipe).short == short


def test_pairs_and_single_responses_enumerate_the_same() -> None:
    one, pairs, groups = (
        off_policy(reinforce().replace(surrogate=s)) for s in (LogProb(), CoupledLogProb(), CoupledLogProbInGroups())
    )
    assert pairs.number == pytest.approx(one.number)
    assert groups.number == pytest.approx(one.number)


@part
class CoupledLogProb(LogProb):
    unit: ClassVar[Unit] = "batch"


@part
class CoupledLogProbInGroups(LogProb):
    unit: ClassVar[Unit] = "group"


# The derivative ------------------------------------------------------------------------------------------------------


def error(f: Callable[[Tensor], Tensor]) -> float:
    x = random_batch().logp
    return derivative_error(lambda leaves: f(leaves["logp"]).sum(), {"logp": x}, torch.ones_like(x))


def test_what_is_cut_out_of_the_graph_is_held() -> None:
    def without_grad(x: Tensor) -> Tensor:
        with torch.no_grad():
            weight = (2 * x).exp()
        return weight * x

    def in_place(x: Tensor) -> Tensor:
        with torch.no_grad():
            weight = x * 3
            weight += 1
            weight.exp_()
        return weight * x

    assert error(lambda x: x.detach() * x) < TOLERANCE
    assert error(lambda x: x.data * x) < TOLERANCE
    assert error(without_grad) < TOLERANCE
    assert error(in_place) < TOLERANCE
    assert error(lambda x: torch.maximum(x, -0.5 * x - 1)) < TOLERANCE


class Wrong(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        return x**2

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, g: Tensor) -> Tensor:  # type: ignore[override]
        return g


def test_a_gradient_that_is_none_of_the_function_is_found() -> None:
    assert error(Wrong.apply) > 0.1
    assert error(lambda x: x * torch.tensor(x.tolist(), dtype=x.dtype).sum()) > 0.1


# Batches -------------------------------------------------------------------------------------------------------------


def test_a_random_batch_is_consistent() -> None:
    batch = random_batch(seed=3, gaps=True)
    assert ((batch.reward >= 0) & (batch.reward <= 1)).all()
    assert (batch.logp <= 0).all() and (batch.old_logp <= 0).all()
    assert (batch.entropy[batch.mask > 0] > 0).all()
    for group in batch.group.unique():
        assert 0 < batch.correct[batch.group == group].mean() < 1
        assert len(batch.history[batch.group == group].nan_to_num(-1).unique(dim=0)) == 1
    assert torch.equal(random_batch(seed=3).logp, random_batch(seed=3).logp)
    assert not torch.equal(random_batch(seed=3).logp, random_batch(seed=4).logp)


def test_a_random_batch_has_every_column_that_is_there_before_credit() -> None:
    later = {"token_reward", "true_length", "advantage", "returns", "share", "support", "support_ids", "routes"}
    batch = random_batch()
    assert {c.name for c in schema.columns() if getattr(batch, c.name) is None} == later


def test_a_batch_has_the_columns_that_are_asked_for_and_no_others() -> None:
    every = [name for c in schema.columns() for name in schema.on_demand(c.name)]
    batch = declared(random_batch(), frozenset({"entropy", "value"}))
    assert {name for name in every if getattr(batch, name) is not None} == {"entropy", "value", "old_value"}


# A user's own file ---------------------------------------------------------------------------------------------------

HEAD = """
import torch
from policyopt.rows import masked, masked_mean
from policyopt.methods.group.grpo import grpo
from policyopt.parts import *
from policyopt.part import part
from policyopt.registry import method
"""

GOOD = """
@part
class Capped(Surrogate):
    cap: float = 3.0

    def __call__(self, log_ratio, batch):
        return -log_ratio.exp().clamp(max=self.cap) * batch.advantage
"""

BROKEN = {
    "no decorator": (
        "class X(Surrogate):\n  def __call__(self, log_ratio, batch):\n    return -log_ratio",
        "put @part",
    ),
    "rows for tokens": (
        "@part\nclass X(Surrogate):\n  def __call__(self, log_ratio, batch):\n    return -log_ratio.sum(-1)",
        r"returns shape [9], where [N, T] = [9, 6] is expected",
    ),
    "no tensor": (
        "@part\nclass X(Aggregate):\n  def __call__(self, batch):\n    return 0.5",
        "returns float, where a tensor",
    ),
    "padding": (
        "@part\nclass X(Weight):\n  unit = 'row'\n  def __call__(self, log_ratio, batch):\n"
        "    return log_ratio.detach().mean(-1, keepdim=True).expand_as(log_ratio)",
        "reads padding: NaN on the padding spreads",
    ),
    "padding that hides NaN": (
        "@part\nclass X(Weight):\n  unit = 'row'\n  def __call__(self, log_ratio, batch):\n"
        "    return log_ratio.detach().nan_to_num().mean(-1, keepdim=True).expand_as(log_ratio)",
        "reads padding",
    ),
    "numbers on the padding": (
        "@part\nclass X(Advantage):\n  def __call__(self, batch):\n    return batch.reward[:, None].expand_as(batch.mask)",
        "is not 0 on the padding",
    ),
    "a gradient through weights": (
        "@part\nclass X(Weight):\n  def __call__(self, log_ratio, batch):\n    return log_ratio.exp()",
        "lets a gradient flow through its weights",
    ),
    "order of rows": (
        "@part\nclass X(Weight):\n  unit = 'batch'\n  def __call__(self, log_ratio, batch):\n"
        "    return torch.arange(len(log_ratio))[:, None].expand_as(log_ratio).to(log_ratio)",
        "depends on the order of the rows",
    ),
    "rows coupled in secret": (
        "@part\nclass X(Surrogate):\n  def __call__(self, log_ratio, batch):\n"
        "    return -log_ratio.exp() * (batch.advantage - masked_mean(batch.advantage, batch.mask))",
        "has unit 'token' but looks beyond the row",
    ),
    "groups coupled in secret": (
        "@part\nclass X(Surrogate):\n  unit = 'group'\n  def __call__(self, log_ratio, batch):\n"
        "    return -log_ratio.exp() * (batch.advantage - masked_mean(batch.advantage, batch.mask))",
        "has unit 'group' but looks beyond the prompt",
    ),
    "a column not asked for": (
        "@part\nclass X(Weight):\n  def __call__(self, log_ratio, batch):\n    return batch.entropy.detach()",
        "reads batch.entropy, which is None unless asked for: needs = frozenset({'entropy'})",
    ),
    "a statistic not listed": (
        "@part\nclass X(Weight):\n  def __call__(self, log_ratio, batch):\n    return batch.stat(LogProb())",
        "reads a statistic that it lists neither under live nor under fixed (mine.py, line 12)",
    ),
    "an exception": (
        "@part\nclass X(Surrogate):\n  def __call__(self, log_ratio, batch):\n    return log_ratio @ batch.advantage",
        "raises RuntimeError: mat1 and mat2",
    ),
    "a value outside the graph": (
        "@part\nclass X(Surrogate):\n  def __call__(self, log_ratio, batch):\n"
        "    return -torch.tensor(log_ratio.tolist(), dtype=log_ratio.dtype).exp() * log_ratio",
        "gradient that is not the derivative of its value",
    ),
    "no gradient": (
        "@part\nclass X(Surrogate):\n  def __call__(self, log_ratio, batch):\n    return -log_ratio.detach()",
        "gives a loss that no gradient can leave",
    ),
    "in place": (
        "@part\nclass X(Shape):\n  def __call__(self, batch):\n    batch.reward.mul_(2)\n    return batch",
        "changes batch.reward in place",
    ),
    "a tensor for a batch": (
        "@part\nclass X(Shape):\n  def __call__(self, batch):\n    return batch.reward * 2",
        "a shape returns the batch, not Tensor",
    ),
    "chance": (
        "@part\nclass X(Weight):\n  def __call__(self, log_ratio, batch):\n    return torch.rand_like(log_ratio)",
        "gives another result when it is called again",
    ),
    "NaN": (
        "@part\nclass X(Advantage):\n  def __call__(self, batch):\n    return (batch.reward - 2).log()[:, None] * batch.mask",
        "returns NaN or infinity on an ordinary batch",
    ),
    "rows without tokens": (
        "@part\nclass X(Aggregate):\n  def __call__(self, batch):\n    return batch.mask / batch.mask.sum(-1, keepdim=True)",
        "where a response has no token",
    ),
    "shares from rewards": (
        "@part\nclass X(Aggregate):\n  def __call__(self, batch):\n    return batch.mask * batch.reward[:, None]",
        "makes shares from more than masks and lengths",
    ),
    "numbers for booleans": (
        "@part\nclass X(Filter):\n  def __call__(self, batch):\n    return batch.truncated",
        "where booleans are expected",
    ),
    "another precision": (
        "@part\nclass X(Surrogate):\n  def __call__(self, log_ratio, batch):\n    return -log_ratio.float()",
        "returns torch.float32 from a batch of torch.float64",
    ),
    "one number per token": (
        "@part\nclass X(Regularizer):\n  def __call__(self, batch):\n    return masked(batch.logp, batch.mask).mean()",
        "set unit = 'batch'",
    ),
    "nothing": ("@part\nclass X(Ratio):\n  pass", "has no __call__ of its own"),
}


@pytest.fixture
def check_text(command: Command, tmp_path: Path) -> Callable[..., Said]:
    def call(text: str, *more: str) -> Said:
        (tmp_path / "mine.py").write_text(HEAD + text)
        return command("check", "mine.py", *more)

    return call


@pytest.mark.parametrize(("source", "words"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_part_is_told_what_is_wrong(source: str, words: str, check_text: Callable[..., Said]) -> None:
    said = check_text(f"\n{source}\n")
    assert said.code == 1
    told = [line for line in said.out.splitlines() if line.startswith("broken: ")]
    assert told == [line for line in told if line.startswith("broken: X ")] and len(told) == 1
    assert words in told[0]


def test_a_part_that_is_fine_is_measured_in_a_plain_grpo(check_text: Callable[..., Said]) -> None:
    said = check_text(GOOD, "--json")
    assert said.code == 0
    (found,) = json.loads(said.out)
    assert found["name"] == "Capped in grpo"
    values = {f["key"]: f["value"] for f in found["findings"]}
    assert (values["-inf"], values["len+"], values["shift"]) == ("vanishes", "|w| ~ 1/|y|", "invariant")


def test_a_part_that_needs_columns_gets_them(check_text: Callable[..., Said]) -> None:
    said = check_text("""
@part
class Kinds(Surrogate):
    needs = frozenset({"entropy", "value", "baseline_reward", "teacher_logp", "rollout_logp", "noise"})

    def __call__(self, log_ratio, batch):
        seen = batch.entropy.detach() + batch.old_value + batch.teacher_logp + batch.rollout_logp + batch.noise
        return -log_ratio.exp() * batch.advantage * torch.sigmoid(seen + batch.baseline_reward[:, None])
""")
    assert said.code == 0, said.out
    assert "Kinds in grpo" in said.out


def test_methods_of_a_file_are_checked_with_their_parts(check_text: Callable[..., Said]) -> None:
    said = check_text(
        GOOD
        + """
@method(parent=grpo)
def capped(cap: float = 2.0) -> object:
    return grpo().replace(surrogate=Capped(cap))

@method(parent=grpo)
def gapped(cap: float = 2.0) -> object:
    return grpo().replace(weight=(Gap(),))

@part
class Gap(Weight):
    unit = "row"

    def __call__(self, log_ratio, batch):
        return log_ratio.detach().mean(-1, keepdim=True).expand_as(log_ratio)
""",
        "--json",
    )
    assert said.code == 1
    first, second = json.loads(said.out)
    assert (first["name"], first["broken"]) == ("capped", False)
    assert (second["name"], second["broken"]) == ("gapped", True)
    assert second["faults"][0].startswith("Gap reads padding")
    assert not {"capped", "gapped"} & methods().keys(), "a checked file leaves nothing behind"


def test_a_characteristic_never_fails(check_text: Callable[..., Said], command: Command) -> None:
    assert command("check", "ppo", "reinforce").code == 0
    said = check_text("\n@part\nclass Mean(Advantage):\n  def __call__(self, batch):\n    return (batch.reward - batch.reward.mean())[:, None] * batch.mask\n")  # fmt: skip
    assert said.code == 0
    assert "Mean has unit 'token' but looks beyond the row" in said.out and "no harm is done" in said.out


def test_a_part_with_fields_to_fill_is_not_checked(check_text: Callable[..., Said]) -> None:
    said = check_text(GOOD.replace("cap: float = 3.0", "cap: float"))
    assert said.code == 0
    assert "Capped: not checked: it cannot be made without arguments (cap: is missing)" in said.out


def test_a_part_that_grpo_has_no_place_for_is_checked_alone(check_text: Callable[..., Said]) -> None:
    remembering = """
@part
class Remembering(Advantage):
    needs = frozenset({"history"})

    def __call__(self, batch):
        return (batch.reward - batch.history[:, 0].nan_to_num())[:, None] * batch.mask

@part
class Halfway(Reference):
    def __call__(self, step):
        return step / 2
"""
    said = check_text("from policyopt.part import Reference\n" + remembering)
    assert "Remembering: checked alone: in a plain grpo, advantage (Remembering) needs 'history'" in said.out
    assert "broken: Halfway returns 1.5, where a fraction from 0 to 1 is expected" in said.out


STATISTICS = """
from policyopt.part import Statistic

@part
class Wide(Statistic):
    def __call__(self, logits, target, others):
        return logits.softmax(-1)

@part
class Coupling(Statistic):
    def __call__(self, logits, target, others):
        return logits.logsumexp(-1) - logits.mean()

@part
class Secret(Statistic):
    def __call__(self, logits, target, others):
        return others["teacher"].logsumexp(-1)

@part
class Fine(Statistic):
    roles = frozenset({"teacher"})

    def __call__(self, logits, target, others):
        return others["teacher"].logsumexp(-1) - logits.logsumexp(-1)
"""


def test_statistics_are_checked_alone(check_text: Callable[..., Said]) -> None:
    assert check_text(STATISTICS).out.splitlines() == [
        "broken: Wide returns shape [12, 5], where one number per token, [M] = [12], is expected",
        "broken: Coupling looks at other tokens: worked out in chunks it gives other numbers",
        "broken: Secret reads the logits of 'teacher', which its roles do not name",
        "Fine: checked alone: it fills no slot of the objective",
    ]


def test_a_method_that_makes_no_recipe_is_broken(check_text: Callable[..., Said]) -> None:
    said = check_text("\n@method()\ndef mine(cap) -> object:\n  return grpo()\n")
    assert said.code == 1
    assert "broken: mine makes no recipe from its defaults: TypeError" in said.out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\n", "mine.py defines neither a method (a function under @method) nor a part"),
        ("x = 1 / 0\n", "mine.py cannot be imported: line 8: ZeroDivisionError: division by zero"),
        ("def f(:\n", "mine.py cannot be imported: line 8: SyntaxError: invalid syntax"),
        ("raise SystemExit(3)\n", "mine.py cannot be imported: line 8: SystemExit: 3"),
    ],
)
def test_a_file_that_cannot_be_checked(text: str, words: str, check_text: Callable[..., Said]) -> None:
    said = check_text(text)
    assert (said.code, said.out) == (2, "")
    assert words in said.err


def test_a_file_may_have_a_grpo_of_its_own(check_text: Callable[..., Said]) -> None:
    said = check_text("@method()\ndef grpo():\n  pass\n")
    assert said.code == 1 and "broken: grpo makes no recipe from its defaults" in said.out


def test_what_is_neither_a_method_nor_a_file(command: Command) -> None:
    assert "there is no file nowhere.py" in command("check", "nowhere.py").err
    said = command("check", "grppo")
    assert said.code == 2
    assert (
        "no method is called 'grppo'; nearest: grpo" in said.err and "one of your own is my.py, my.py:NAME" in said.err
    )
    assert "check has no option --fast" in command("check", "grpo", "--fast").err
    assert command("check").code == 2


# What is printed -----------------------------------------------------------------------------------------------------


def test_check_prints_a_line_for_every_property(command: Command) -> None:
    said = command("check", "grpo")
    assert said.code == 0
    assert "length bias, A > 0" in said.out and "|w| ~ 1/|y|" in said.out
    assert "grpo: weights, groups of equal rewards and off-policy are measured without KL" in said.out
    assert said.out.splitlines()[-1] == "nothing is broken"


def test_list_shows_the_properties_of_all_methods(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: get_method(name) for name in ("grpo", "luspo")}
    monkeypatch.setattr("policyopt.registry.methods", lambda: few)
    monkeypatch.setattr("policyopt.lens.check.check", lambda recipe: report(recipe.name))
    table = command("list", "--properties").out.splitlines()
    assert table[0].split() == ["method", *COLUMNS]
    assert [line.split() for line in table[1:3]] == rows([report(name) for name in few])
    page = command("list", "--properties", "--markdown").out
    assert page == markdown([report(name) for name in few]) + "\n"
    assert "policyopt list --properties --markdown > docs/properties.md" in page
    data = json.loads(command("list", "--properties", "--json").out)
    assert [r["name"] for r in data] == list(few)


def test_a_recipe_that_is_broken_though_none_of_its_parts_is_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    broken = Finding("order", "order of rows", "changes the result", "no", 0.3, "deviation", broken=True)
    show(Report("mine", (broken,)), Console())
    assert capsys.readouterr().out.splitlines()[0] == "broken: mine: order of rows: changes the result"
    assert rows([Report("mine", (broken,))])[0][-1] == "NO"


def test_numbers_that_are_not_finite_are_null() -> None:
    found = Report("mine", (Finding("x", "x", "x", "x", float("inf")), Finding("y", "y", "y", "y", 0.5))).to_dict()
    assert [f["number"] for f in found["findings"]] == [None, 0.5]
    json.dumps(found, allow_nan=False)


def test_an_advantage_that_names_its_unit_gets_no_remark() -> None:
    @part
    class Batchwise(Advantage):
        unit: ClassVar[Unit] = "batch"

        def __call__(self, batch: Batch) -> Tensor:
            return (batch.reward - batch.reward.mean())[:, None] * batch.mask

    assert faults(Batchwise()) == remarks(Batchwise()) == []
