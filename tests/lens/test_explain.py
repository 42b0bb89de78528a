"""What `explain` says of a recipe: differences, token weights, counted costs, formulas, terminal and page."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import json
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree

import pytest
import torch

from policyopt import registry, schema
from policyopt.docs import first_sentence, paragraphs
from policyopt.items import Verdict
from policyopt.lens import cost, explain_entry
from policyopt.lens.cost import Passes, measure, take
from policyopt.lens.drawn_rows import QUESTIONS, ROWS, Drawn, drawn_rows
from policyopt.lens.explain import Explanation, differences, explain
from policyopt.lens.explain_page import render, write_explanation
from policyopt.lens.explain_terminal import view
from policyopt.lens.formula import lines, mathml, prose, unicode
from policyopt.lens.probe_batch import GROUPS, Picture, distributions, picture, probe_batch
from policyopt.methods.aggregation.luspo import luspo
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.methods.baseline.remax import remax
from policyopt.methods.clip.cispo import cispo
from policyopt.methods.clip.dapo import dapo
from policyopt.methods.critic.ppo import ppo
from policyopt.methods.critic.t_ppo import t_ppo
from policyopt.methods.exit.s_grpo import s_grpo
from policyopt.methods.group.grpo import grpo
from policyopt.methods.guidance.scaf_grpo import scaf_grpo
from policyopt.methods.judge.urpo import urpo
from policyopt.methods.ratio.gspo import gspo
from policyopt.methods.target.expo import expo
from policyopt.objective import credit, kept, objective, selected, shaped
from policyopt.part import Regularizer, Unit, part
from policyopt.parts import EntropyBonus, KLPenalty, Logistic, Normalise, Pairs, PPOClip, SeqMeanTokenMean, TokenMean
from policyopt.parts.regularizer.kl import KL
from policyopt.recipe import Recipe
from policyopt.registry import Method, entry, guide, methods, tool
from policyopt.sources.draw import Group, Levels, Tree
from policyopt.sources.given import PreferencePairs
from policyopt.steering import control
from tests.batches import EVERY_METHOD, LIBRARY_PARTS, SOME_METHODS, held
from tests.commands import Said
from tests.contrast import check_readable
from tests.engine.test_local import ORIGINS

Command = Callable[..., Said]


# Differences ---------------------------------------------------------------------------------------------------------


def places(recipe: Recipe, other: Recipe) -> dict[str, tuple[str | None, str | None]]:
    return {d.path: (d.here, d.there) for d in differences(recipe, other)}


def test_luspo_with_the_bounds_of_gspo_differs_in_the_aggregation_alone() -> None:
    assert places(luspo(3e-4, 4e-4), gspo()) == {"aggregate": ("SeqMeanTokenSum", "SeqMeanTokenMean")}
    assert places(luspo(), gspo()).keys() == {"aggregate", "surrogate.low", "surrogate.high"}


def test_parts_of_a_list_are_matched_by_their_class() -> None:
    one = grpo().replace(regularizers=(KL(coef=0.1),))
    two = grpo().replace(regularizers=(EntropyBonus(coef=0.02), KL(coef=0.2)))
    assert places(two, one) == {
        "regularizers.EntropyBonus": ("EntropyBonus(coef=0.02)", None),
        "regularizers.KL.coef": ("0.2", "0.1"),
    }
    assert places(one, two) == {
        "regularizers.KL.coef": ("0.1", "0.2"),
        "regularizers": (None, "EntropyBonus(coef=0.02)"),
    }
    turned = two.replace(regularizers=two.regularizers[::-1])
    assert list(places(turned, two)) == ["regularizers"]


def test_a_recipe_differs_from_itself_nowhere() -> None:
    for method in methods().values():
        assert not places(method(), method())


def test_marks_stand_where_the_recipes_differ() -> None:
    e = explain(luspo(), gspo(low=2e-3))
    assert list(e.differences) == ["gspo"]
    marked = {p.path: dict(p.elsewhere) for p in e.parts if p.elsewhere}
    assert marked == {"aggregate": {"gspo": "SeqMeanTokenMean"}}
    fields = {f"{p.path}.{f.name}": dict(f.elsewhere) for p in e.parts for f in p.fields if f.elsewhere}
    assert fields == {"surrogate.high": {"gspo": "0.0004"}}
    both = explain(luspo(), grpo())
    assert list(both.differences) == ["gspo", "grpo"]
    assert both.other is not None and both.other.name == "grpo"


# Token weights -------------------------------------------------------------------------------------------------------


def finite_differences(recipe: Recipe, rows: tuple[int, ...]) -> list[list[float]]:
    """-dL/dlogp of some rows of the fixed batch, by moving one log-probability after the other."""
    recipe = control(recipe, {}, {})
    batch = shaped(recipe, probe_batch(recipe))
    numbers = kept(recipe, batch).nonzero()[:, 0]
    trained = credit(recipe, batch[numbers])
    chosen = selected(recipe, trained).nonzero()[:, 0]
    trained, places = trained[chosen], numbers[chosen].tolist()
    loss = held(lambda logp: objective(recipe, trained.replace(logp=logp)))
    loss(trained.logp)
    asked = trained.mask * torch.tensor([[float(i in rows)] for i in places])
    found = dict(zip(places, slope(loss, trained.logp, asked).tolist(), strict=True))
    length, silent = batch.mask.sum(1).int().tolist(), [0.0] * batch.mask.shape[1]
    return [found.get(i, silent)[: length[i]] for i in rows]


def slope(loss: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    out, h = torch.zeros_like(at), 1e-6
    for i, t in mask.nonzero().tolist():
        step = torch.zeros_like(at)
        step[i, t] = h
        out[i, t] = -(loss(at + step) - loss(at - step)) / (2 * h)
    return out


@EVERY_METHOD
def test_weights_are_the_slope_of_the_loss(method: Method) -> None:
    recipe = method()
    found = picture(recipe)
    if found.problem:
        assert recipe.filter and "leave no row" in found.problem
        return
    scale = max(1e-3, *(abs(w) for row in found.weights for w in row))
    rows = (0, 2, 3, 6, 17)
    for i, expected in zip(rows, finite_differences(recipe, rows), strict=True):
        assert found.weights[i] == pytest.approx(expected, rel=1e-5, abs=1e-6 * scale), i


def test_the_batch_tells_methods_apart() -> None:
    token, sequence = picture(grpo(kl_coef=0)), picture(gspo())
    flat = [(w, v) for a, b in zip(token.weights, sequence.weights, strict=True) for w, v in zip(a, b, strict=True)]
    assert any(w and not v for w, v in flat)
    assert any(v and not w for w, v in flat)
    # A response whose mean log-ratio is 0 is inside every bound, one of its tokens outside.
    assert all(sequence.weights[0]) and not all(token.weights[0])
    # Length: the weight of a token of GSPO shrinks with the response, that of LUSPO does not.
    wide = {"low": None, "high": None}
    for make, factor in ((gspo, 8 / 3), (luspo, 1.0)):
        short, long = (picture(make(**wide)).weights[i][0] / s for i, s in ((0, 1.0), (1, 0.9656)))
        assert short / long == pytest.approx(factor, rel=1e-3)


def test_groups_without_signal_are_silent_and_filtered_ones_left_out() -> None:
    plain = picture(grpo(kl_coef=0))
    assert [any(row) for row in plain.weights] == [True] * 10 + [False] * 10
    found = picture(dapo())
    assert [row.kept for row in found.rows] == [True] * 10 + [False] * 10
    assert found.rows[10].advantage == () and set(found.weights[10]) == {0.0}


def test_every_bound_and_sign_is_on_the_batch() -> None:
    batch = probe_batch(grpo())
    ratio = (batch.logp - batch.old_logp).exp()[batch.mask.bool()]
    advantage = credit(grpo(), batch).advantage[batch.mask.bool()]
    for sign in (1, -1):
        mine = ratio[advantage * sign > 0]
        assert (mine > 1.28).any() and (mine < 0.8).any() and (mine == 1).any() and ((mine - 1).abs() < 0.03).any()
    assert sorted(set(batch.mask.sum(1).tolist())) == list(range(1, 9))
    assert float(batch.truncated.sum()) == 1
    rewards = [{reward for reward, _ in group} for group in GROUPS]
    assert rewards == [{0, 1}, {0, 1}, {0}, {1}]
    for name in ("logp", "old_logp", "ref_logp", "teacher_logp", "prox_logp", "prev_logp"):
        assert (getattr(batch, name)[batch.mask.bool()] < 0).all()


def test_every_column_is_filled() -> None:
    made_later = {"advantage", "returns", "share", "token_reward", "true_length"}
    filled = probe_batch(grpo()).columns()
    assert {c.name for c in schema.columns()} - filled.keys() == made_later | {
        "rollout_logp",
        "history",
        "support",
        "support_ids",
        "routes",
    }
    beside = filled.pop("beats")  # NaN at its own place
    assert beside.isnan().any(1).all()
    assert all(x.isfinite().all() for x in filled.values())


def test_other_leaves_are_shown_where_the_loss_moves_them() -> None:
    assert set(picture(ppo()).others) == {"value"}
    moved = picture(grpo().replace(regularizers=(EntropyBonus(coef=0.02),)))
    assert not picture(grpo(kl_coef=0)).others
    # The bonus is 0.02 times the entropy times the share of the token; its push is the slope along the drawn token's
    # logit, and the same push from log p itself would be w * (1 - p).
    logits = distributions()["policy"][0, 1]
    drawn, h = int(probe_batch(grpo()).tokens[0, 1]), 1e-6

    def entropy(z: torch.Tensor) -> float:
        return float(torch.distributions.Categorical(logits=z).entropy())

    step = h * torch.nn.functional.one_hot(torch.tensor(drawn), len(logits))
    slope = (entropy(logits + step) - entropy(logits - step)) / (2 * h)
    push = 0.02 / 20 / 3 * slope / (1 - float(logits.softmax(-1)[drawn]))
    assert moved.others["entropy"][0][1] == pytest.approx(push, rel=1e-6)
    assert not picture(grpo()).others


# Rows that are really drawn ------------------------------------------------------------------------------------------


def drawn(recipe: Recipe) -> Drawn:
    return drawn_rows(take(recipe)[1])


TIMED = ("duration-aware-mle", "arm-ada-grpo", "adora", "echo", "decision-mamba")
"""Methods that are their parent where no judge says how long a program ran, no response has a way of answering, none that is right is long, nobody else speaks, or training begins. Those that rewrite contexts are it where a question is
answered once."""


def test_no_two_methods_have_the_same_picture_unless_they_are_the_same() -> None:
    recipes = {name: method() for name, method in methods().items()}
    alike: dict[str, list[str]] = {}
    for name, recipe in recipes.items():
        p = picture(recipe)
        numbers = [[round(w, 9) for row in grid for w in row] for grid in (p.weights, *p.others.values())]
        alike.setdefault(repr((numbers, [row.kept for row in p.rows])), []).append(name)
    slots = (
        "source",
        "advantage",
        "surrogate",
        "aggregate",
        "ratio",
        "weight",
        "regularizers",
        "critic",
        "filter",
        "select",
    )
    for names in alike.values():
        names = [name for name in names if name not in TIMED and not getattr(recipes[name].source, "rewrites", False)]
        rows = {name: drawn(recipes[name]).rows for name in names} if len(names) > 1 else {}
        for one, other in itertools.combinations(names, 2):
            same = all(getattr(recipes[one], slot) == getattr(recipes[other], slot) for slot in slots)
            assert (rows[one] == rows[other]) == same, (one, other)


def test_hints_shared_beginnings_and_auxiliary_rows_are_shown() -> None:
    hinted = drawn(scaf_grpo())
    assert hinted.kinds == ("read",)
    rescued = [row for row in hinted.rows if any(t.kind == "read" for t in row.tokens)]
    assert {"".join(t.text for t in row.tokens if t.kind == "read") for row in rescued} <= {"3", "3+", "3+4"}
    # One of eight: its advantage is (G - 1) / sqrt(G), and its hint has no weight.
    assert {round(row.advantage[0], 2) for row in rescued} == {round(7 / 8**0.5, 2)}
    assert not any(t.weight for row in rescued for t in row.tokens if t.kind == "read")
    assert any(t.weight for row in rescued for t in row.tokens)

    exits = drawn(s_grpo())
    assert exits.kinds == ("read", "shared")
    assert [row.kinds for row in exits.rows[:3]] == [(), ("auxiliary 1",), ("auxiliary 2",)]
    whole, first = ("".join(t.text for t in row.tokens) for row in exits.rows[:2])
    shared = "".join(t.text for t in exits.rows[1].tokens if t.kind == "shared")
    assert shared and whole.startswith(shared) and first.startswith(f"{shared}\n#### ")

    tree = drawn(grpo().replace(source=Tree(size=8, branching=Levels(widths=(2, 4), segment=3))))
    assert "shared" in tree.kinds
    for row in tree.rows:
        stem = [t.text for t in row.tokens if t.kind == "shared"]
        above = [[t.text for t in r.tokens[: len(stem)]] for r in tree.rows[: tree.rows.index(row)]]
        assert not stem or stem in above

    explained = [row for row in drawn(expo()).rows if row.kinds == ("auxiliary 1",)]
    assert len(explained) == 3, "one for each question that is shown"
    refereed = [row.kinds for row in drawn(urpo()).rows if row.kinds]
    assert refereed and set(refereed) == {("auxiliary 1", "another question")}


def test_given_texts_are_shown() -> None:
    pairs = drawn(
        Recipe(
            source=PreferencePairs(),
            advantage=Normalise(centre="none", scale="none"),
            surrogate=Pairs(link=Logistic()),
            aggregate=SeqMeanTokenMean(),
        )
    )
    assert [(row.kinds, "".join(t.text for t in row.tokens)) for row in pairs.rows[:2]] == [
        (("chosen",), "3+4=7<|end|>"),
        (("rejected",), "3+4=8<|end|>"),
    ]
    assert pairs.rows[0].weight > 0 > pairs.rows[1].weight


def test_few_rows_of_many_are_shown() -> None:
    wide = drawn(grpo(kl_coef=0).replace(source=Group(size=12)))
    assert wide.total == 96 and len(wide.rows) == QUESTIONS * ROWS
    assert [row.question for row in wide.rows] == [q for q in (1, 2, 3) for _ in range(ROWS)]
    # Where a prompt has one row, a row stands for each.
    single = drawn(reinforce())
    assert len(single.rows) == single.total == 8


@part
class Impossible(Regularizer):
    """Reads a column that no batch has."""

    def __call__(self, batch: Any) -> Any:
        return batch.no_such_column


def test_what_cannot_be_computed_says_why() -> None:
    found = picture(grpo().replace(regularizers=(Impossible(),)))
    assert "no_such_column" in found.problem
    e = explain(grpo(), grpo())
    broken = Explanation(**{**vars(e), "picture": found})
    assert any("no_such_column" in line.plain for line in view(broken))
    assert "no_such_column" in render(broken)
    assert json.loads(json.dumps(broken.to_dict(), allow_nan=False))["picture"]["problem"]


# Costs ---------------------------------------------------------------------------------------------------------------


def test_counted_costs_are_what_they_must_be() -> None:
    found = measure(grpo())
    assert (found.sampled, found.tokens, found.updates) == (1, 1, 1)
    assert found.passes == {"policy": Passes(0, 1), "reference": Passes(1, 0)}
    assert measure(grpo(kl_coef=0)).passes == {"policy": Passes(0, 1)}

    actor_critic = measure(ppo())
    assert actor_critic.updates == 4
    assert actor_critic.passes == {"policy": Passes(0, 4), "critic": Passes(1, 4), "reference": Passes(1, 0)}

    greedy = measure(remax())
    assert greedy.sampled == 2
    assert greedy.tokens > 1
    # The greedy response is scored by the reference too, for its own KL.
    assert greedy.passes == {"policy": Passes(0, 1), "reference": Passes(greedy.tokens, 0)}


@part
class Coupled(Regularizer):
    """The square of the mean log-probability of the whole batch."""

    unit: ClassVar[Unit] = "batch"

    def __call__(self, batch: Any) -> Any:
        return ((batch.share * batch.logp).sum()) ** 2


@part
class Mismatch(Regularizer):
    """Reads what the sampler said beside what the trainer says."""

    needs: ClassVar[frozenset[str]] = frozenset({"rollout_logp"})

    def __call__(self, batch: Any) -> Any:
        return batch.logp * (batch.old_logp - batch.rollout_logp)


def test_a_coupled_objective_and_a_recomputed_policy_take_a_second_pass() -> None:
    plain = grpo(kl_coef=0)
    assert measure(plain.replace(regularizers=(Coupled(),))).passes == {"policy": Passes(1, 1)}
    assert measure(plain.replace(regularizers=(Mismatch(),))).passes == {"policy": Passes(1, 1)}
    assert measure(plain.replace(regularizers=(Mismatch(), Coupled()))).passes == {"policy": Passes(2, 1)}
    with_penalty = plain.replace(shape=(KLPenalty(coef=0.1),), regularizers=(KL(coef=0.1),))
    assert measure(with_penalty).passes == {"policy": Passes(0, 1), "reference": Passes(1, 0)}


def test_prompts_that_a_filter_drops_are_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of four questions one is never answered right and one always: half of what is drawn has no signal.
    assert 1.5 < measure(dapo()).sampled < 3.5
    assert measure(grpo()).sampled == 1
    turn = itertools.count()

    def judge(items: Any) -> list[Verdict]:
        return [Verdict(float(i % 2), bool(i % 2), True, "") for _, i in zip(items, turn)]

    monkeypatch.setattr(cost, "_judge", judge)
    assert measure(dapo()).sampled == 1


def test_counting_leaves_the_random_state_and_the_threads_alone() -> None:
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    assert measure(gspo()) == measure(gspo())
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.get_num_threads() == threads


# Formulas ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("latex", "text"),
    [
        (r"L = \frac1N\sum_i |y_i|\max(-s_i A_i, -\mathrm{clip}(s_i)A_i)", "L = 1/N ∑ᵢ |yᵢ| max(−sᵢAᵢ, −clip(sᵢ)Aᵢ)"),
        (r"\frac{R_i - \mathrm{mean}}{\mathrm{std} + \epsilon}", "(Rᵢ − mean)/(std + ϵ)"),
        (r"\frac{1}{N L_{max}}", "1/(NLₘₐₓ)"),
        (r"\hat A_t = \sum_l(\gamma\lambda)^l\delta_{t+l}", "Âₜ = ∑ₗ (γλ)ˡδₜ₊ₗ"),
        (r"\pi_{old}(y_{<t})^2 - 1", "π_old(y_<t)² − 1"),
        (r"\beta\,\widehat{KL}(\pi_\theta \| \pi_{ref})", "β K̂L(π_θ ‖ π_ref)"),
        (r"\sqrt{x^2+1}", "√(x² + 1)"),
        (r"1 - \binom{n-c}{k} \Big/ \binom nk", "1 − (n − c choose k)/(n choose k)"),
        (r"\overline{\rho\log\rho} + \bar R + \hat\pi_{ref}", "bar(ρ log ρ) + R̄ + π̂_ref"),
        (r"\|a - b\|_1", "‖a − b‖₁"),
        (r"V = \begin{cases}0 & \text{right, at last}\\ 1 & \text{wrong}\end{cases}", "V = {0 right, at last; 1 wrong"),
    ],
)
def test_formulas_in_plain_characters(latex: str, text: str) -> None:
    assert unicode(latex) == unicodedata.normalize("NFC", text)


def test_a_formula_is_cut_at_its_gaps() -> None:
    assert lines(r"a = 1,\qquad b = 2 \\ c = 3") == ["a = 1,", "b = 2", "c = 3"]


def test_markup_of_docstrings() -> None:
    doc = "The ratio :math:`r_i` of ``low`` (J. Schulman, eq. 7). More of :class:`~policyopt.rows.Batch`.\n\n.. math:: a\n          = b\n\nEnd."
    assert first_sentence(doc) == "The ratio :math:`r_i` of ``low`` (J. Schulman, eq. 7)."
    assert paragraphs(doc) == (["a = b"], [doc.split("\n\n")[0], "End."])
    assert list(prose("a :math:`x` ``y`` :func:`~p.q`")) == [
        ("text", "a "), ("math", "x"), ("text", " "), ("code", "y"), ("text", " "), ("code", "q"),
    ]  # fmt: skip


def test_every_formula_of_the_library_can_be_shown() -> None:
    docs = [m.make.__doc__ or "" for m in methods().values()] + [c.__doc__ or "" for c in LIBRARY_PARTS.values()]
    docs += [e.load().make.__doc__ or "" for kind in ("study", "tool", "guide") for e in registry.entries(kind)]
    for doc in docs:
        formulas, texts = paragraphs(doc)
        inline = [x for text in texts for kind, x in prose(text) if kind == "math"]
        for latex in [piece for f in formulas for piece in lines(f)] + inline:
            root = ElementTree.fromstring(mathml(latex))
            assert not [x.text for x in root.iter() if x.tag.endswith("merror")]
            assert "\\" not in unicode(latex), latex
            assert "\\" not in "".join(root.itertext()), latex
            if "begin{cases}" in latex:
                inside = latex.split("begin{cases}")[1].split("end{cases}")[0]
                rows = len([x for x in root.iter() if x.tag.endswith("mtr")])
                assert rows == inside.count("\\\\") + 1 > 1, latex


# The command ---------------------------------------------------------------------------------------------------------


@SOME_METHODS
def test_every_method_explains_itself(method: Method, tmp_path: Path) -> None:
    e = explain(method())
    assert e.facts.formulas, "a method's docstring has its formula"
    for p in filter(None, (e.picture, e.other)):
        check_picture(p)
    assert e.picture.problem == ""
    moved = [any(map(any, grid)) for grid in (e.picture.weights, *e.picture.others.values())]
    if method.name not in ORIGINS:  # the picture's rows come from one place, and its loss takes rows of several
        assert any(moved), "some token has a weight"
    assert e.costs[method.name].passes["policy"].backward > 0
    assert (e.other is None) == (method.parent is None)
    if method.parent is not None:
        assert e.differences[method.parent], "a method differs from its parent"
    text = "\n".join(line.plain for line in view(e))
    for found in e.differences.values():
        for d in found:
            assert d.there is None or f": {d.there}]" in text
    json.dumps(e.to_dict(), allow_nan=False)
    page = write_explanation(e, tmp_path / "page.html").read_text("utf-8")
    grids = [grid for p in (e.picture, e.other) if p for grid in (p.weights, *p.others.values())]
    assert page.count('class="w ') == sum(sum(map(len, grid)) for grid in grids if any(map(any, grid)))


def check_picture(p: Picture) -> None:
    assert len(p.rows) == len(p.weights) == sum(map(len, GROUPS))
    for grid in (p.weights, *p.others.values()):
        for row, weights in zip(p.rows, grid, strict=True):
            assert len(weights) == row.length == len(row.ratio)
            assert torch.tensor(weights).isfinite().all()
            assert row.kept or not any(weights)


def test_the_command_prints_columns(command: Command) -> None:
    said = command("explain", "luspo", "--vs", "gspo")
    assert (said.code, said.err) == (0, "")
    assert "parent gspo" in said.out and "arXiv:2602.05261" in said.out
    assert "L = 1/N ∑ᵢ |yᵢ| max(−sᵢAᵢ" in said.out
    assert re.search(r"● aggregate +SeqMeanTokenSum .*\[gspo: SeqMeanTokenMean\]", said.out)
    assert re.search(r"●     low +0\.002 +\[gspo: 0\.0003\]", said.out)
    assert len(re.findall(r"^●", said.out, re.M)) == 4
    assert re.search(r"policy: forward and backward +1 +1\n", said.out)
    assert "Token weights of luspo" in said.out and "Token weights of gspo" in said.out
    assert "\x1b" not in said.out
    assert not re.search(r" +$", said.out, re.M)


def test_the_command_fits_a_terminal(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")
    said = command("explain", "ppo")
    assert "\x1b[" in said.out
    text = re.sub(r"\x1b\[[0-9;]*m", "", said.out)
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("name", ["ppo", "s-grpo", "keye-vl"])
def test_tables_fit_a_narrow_terminal(name: str) -> None:
    e = explain(methods()[name](), dapo())
    for line in (line.plain for line in view(e, 60)):
        # Prose wraps; a line of a table is cut nowhere.
        if re.match(r"( \d|  ) +-?\d+\.\d\d ", line) and "|" not in line and "auxiliary" not in line:
            assert len(line) <= 60, line
    costs = [line.plain for line in view(e, 60) if re.match("  [a-z, :]+ +[0-9.]+ +[0-9.–]+$", line.plain)]
    assert len(costs) > 3 and max(map(len, costs)) <= 60


def test_the_command_prints_json(command: Command) -> None:
    said = command("explain", "cispo", "--json")
    found = json.loads(said.out)
    assert found["facts"]["name"] == "cispo"
    assert found["recipe"] == cispo().to_dict()
    assert found["costs"]["cispo"]["passes"] == {"policy": {"forward": 0.0, "backward": 1.0}}
    assert {d["path"] for d in found["differences"]["reinforce"]} >= {"weight.TruncatedRatio", "aggregate"}
    assert [len(row["weights"]) for row in found["picture"]["rows"]] == [len(s) for g in GROUPS for _, s in g]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("KL", ["kind part", "slot regularizer", "coef", "number at least 0, default 0.04", "k1 or k2 or k3 or abs, default k3",
                "needs  ref_logp", "multirole-r1", "from policyopt.parts.regularizer.kl import KL"]),
        ("Schedule", ["slot controller", "steps  whole number at least 1, must be given", "grpo-d"]),
        ("chain_sum", ["kind testbed", "policyopt train grpo --task chain_sum", "question", "=?", "#### "]),
        ("ties", ["kind testbed", "solution"]),
        ("rl-subnetworks", ["kind study", "policyopt train grpo --with rl-subnetworks", "probes  UpdateSparsity",
                            "precision  default bfloat16", "the authors' code", "sparsity = 1"]),
    ],
)  # fmt: skip
def test_each_kind_explains_itself_in_its_own_way(name: str, wanted: list[str], command: Command) -> None:
    said = command("explain", name)
    assert (said.code, said.err) == (0, "")
    for text in wanted:
        assert text in said.out, text
    told = json.loads(command("explain", name, "--json").out)
    assert told["name"] == name
    assert told["use"] in said.out
    for line in (["--vs", "grpo"], ["--out", "page.html"]):
        refused = command("explain", name, *line)
        assert refused.code == 2 and "--vs and --out are for methods" in refused.words


@pytest.mark.parametrize("decorator", [tool, guide])
def test_tools_and_guides_explain_themselves(
    decorator: Any, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tools_of_ours.py").write_text(
        'def best_of_many(n: int = 4) -> int:\n    """The best of many.\n\n    .. math:: y = x^2\n\n    At length."""\n    return n\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_OTHERS", {})
    module = importlib.import_module("tools_of_ours")
    monkeypatch.setattr(module, "best_of_many", decorator(use="policyopt sample --n 4")(module.best_of_many))
    said = command("explain", "best-of-many")
    for text in ("The best of many.", "y = x²", "At length.", "use  policyopt sample --n 4", "n  default 4"):
        assert text in said.out


@pytest.mark.parametrize("name", LIBRARY_PARTS)
def test_every_part_can_be_described(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain_entry, "methods", dict)
    told = json.loads(json.dumps(explain_entry.described(entry(name))))
    assert told["family"] and told["text"][0]
    assert {f["name"] for f in told["fields"]} <= {f.name for f in dataclasses.fields(LIBRARY_PARTS[name])}
    assert not any("typing" in f["type"] or "<" in f["type"] for f in told["fields"]), told["fields"]
    assert "".join(line.plain for line in explain_entry.view(told))


def test_bad_input(command: Command, tmp_path: Path) -> None:
    for line in (["gspp"], ["grpo", "--vs", "gspp"]):
        said = command("explain", *line)
        assert said.code == 2 and said.out == ""
        assert "is called 'gspp'" in said.words and "gspo" in said.words
    said = command("explain", "--vs", "grpo")
    assert said.code == 2 and "the method comes first" in said.words
    for place in (tmp_path / "none" / "page.html", tmp_path):
        said = command("explain", "grpo", "--out", place)
        assert said.code == 2 and said.out == ""
        assert f"--out {place}: it cannot be written" in said.words.replace(" ", "").replace("--out", "--out ").replace(
            ":itcannotbewritten", ": it cannot be written"
        )
    assert list(tmp_path.iterdir()) == []
    assert "usage: policyopt explain" in command("explain", "--help").out


# The page in a browser -----------------------------------------------------------------------------------------------


def test_the_page(browser: Any, tmp_path: Path) -> None:
    path = write_explanation(explain(ppo(), grpo()), tmp_path / "page.html")
    page = browser.new_page(viewport={"width": 1200, "height": 900}, color_scheme="light")
    errors: list[str] = []
    requests: list[str] = []
    page.on("console", lambda m: errors.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.on("request", lambda r: requests.append(r.url))
    page.goto(path.as_uri())
    assert page.title() == "ppo · policyopt"
    assert page.locator("math").count() > 3
    assert page.locator("math").first.bounding_box()["width"] > 50
    assert page.locator(".panels figure h3").all_inner_texts() == ["ppo", "grpo"] * 2
    changed = page.locator(".part.changed .slot").all_inner_texts()
    assert {"advantage", "surrogate", "critic", "aggregate", "regularizers"} <= set(changed)
    assert "ratio" not in changed

    # The numbers of a token, and the same token in the other picture.
    assert page.locator("#tip").is_hidden()
    cell = page.locator('.w[data-at="1,2"]').last
    cell.hover()
    expected = picture(grpo()).weights[1][2]
    assert page.locator("#tip").inner_text().splitlines()[:2] == [
        "token 3 of 8",
        f"w = {expected:.4g}".replace("-", "−"),
    ]
    assert page.locator('.w.current[data-at="1,2"]').count() == page.locator(".w.current").count() == 3
    page.mouse.move(0, 0)  # what scrolls under the pointer would be pointed at
    page.locator(".panels .scroll").first.focus()
    page.wait_for_timeout(200)
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    assert page.locator("#tip").inner_text().startswith("token 2 of 8")

    # Up and down have colours of their own, in both themes; silence has none of them.
    def colours() -> list[str]:
        return [
            page.locator(f".panels .w.{sign}").first.evaluate("e => getComputedStyle(e).backgroundColor")
            for sign in ("up", "down", "none")
        ]

    light = colours()
    page.click("#theme")
    dark = colours()
    assert len({*light, *dark}) == 6
    page.set_viewport_size({"width": 360, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.evaluate("localStorage.clear()")
    page.reload()
    check_readable(page)
    assert errors == []
    assert set(requests) == {path.as_uri()}


def test_the_page_shows_what_is_drawn(browser: Any, tmp_path: Path) -> None:
    e = explain(s_grpo(), t_ppo())
    page = browser.new_page(viewport={"width": 1200, "height": 900}, color_scheme="dark")
    page.goto(write_explanation(e, tmp_path / "page.html").as_uri())
    rows = page.locator("table.drawn").first.locator("tbody tr")
    assert rows.count() == len(e.drawn.rows)
    tokens = rows.nth(1).locator(".tok")
    assert tokens.all_text_contents() == [t.text.replace("\n", "↵") for t in e.drawn.rows[1].tokens]
    assert rows.nth(1).locator(".tok.read").count() == 6
    rows.nth(1).locator(".tok.read").first.hover()
    assert "never trained on" in page.locator("#tip").inner_text() and "w =" not in page.locator("#tip").inner_text()
    tokens.last.hover()
    assert "w = 0.0" in page.locator("#tip").inner_text()
    check_readable(page)


def test_cases_are_whole_in_a_browser(browser: Any, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.goto(write_explanation(explain(t_ppo()), tmp_path / "page.html").as_uri())
    brace, table = page.locator("mo", has_text="{").first, page.locator("mtable").first
    assert "\\" not in "".join(page.locator("math").all_text_contents())
    if page.evaluate("document.fonts.check('16px \"DejaVu Math TeX Gyre\"')"):
        assert brace.bounding_box()["height"] >= 0.9 * table.bounding_box()["height"]
    left = [cell.bounding_box()["x"] for cell in table.locator("mtd:last-child mtext").all()]
    assert len(left) == 2 and abs(left[0] - left[1]) < 1, "the cases stand below each other"


def test_the_page_shows_text_as_text() -> None:
    e = explain(grpo().replace(surrogate=PPOClip(low=0.1), aggregate=TokenMean(), name="<b>mine</b>"))
    assert e.facts.parent is None and e.other is None and not e.differences
    page = render(e)
    assert "<b>mine" not in page and "&lt;b&gt;mine" in page
