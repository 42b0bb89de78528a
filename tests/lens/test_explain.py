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
from policyopt.lens.cost import Passes, measure
from policyopt.lens.explain import Explanation, differences, explain
from policyopt.lens.explain_page import render, write_explanation
from policyopt.lens.explain_terminal import view
from policyopt.lens.formula import lines, mathml, prose, unicode
from policyopt.lens.probe_batch import GROUPS, Picture, distributions, picture, probe_batch
from policyopt.methods.aggregation.luspo import luspo
from policyopt.methods.baseline.remax import remax
from policyopt.methods.clip.cispo import cispo
from policyopt.methods.clip.dapo import dapo
from policyopt.methods.critic.ppo import ppo
from policyopt.methods.group.grpo import grpo
from policyopt.methods.ratio.gspo import gspo
from policyopt.objective import credit, kept, objective, selected, shaped
from policyopt.part import Regularizer, Unit, part
from policyopt.parts import EntropyBonus, KLPenalty, PPOClip, TokenMean
from policyopt.parts.regularizer.kl import KL
from policyopt.recipe import Recipe
from policyopt.registry import Method, entry, guide, methods, tool
from policyopt.steering import control
from tests.batches import EVERY_METHOD, LIBRARY_PARTS, held
from tests.commands import Said

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
    }
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
    for doc in docs:
        formulas, texts = paragraphs(doc)
        inline = [x for text in texts for kind, x in prose(text) if kind == "math"]
        for latex in [piece for f in formulas for piece in lines(f)] + inline:
            root = ElementTree.fromstring(mathml(latex))
            assert not [x.text for x in root.iter() if x.tag.endswith("merror")]
            assert "\\" not in unicode(latex), latex
            assert "\\" not in "".join(root.itertext()), latex


# The command ---------------------------------------------------------------------------------------------------------


@EVERY_METHOD
def test_every_method_explains_itself(method: Method, tmp_path: Path) -> None:
    e = explain(method())
    assert e.facts.formulas, "a method's docstring has its formula"
    for p in filter(None, (e.picture, e.other)):
        check_picture(p)
    assert e.picture.problem == ""
    moved = [any(map(any, grid)) for grid in (e.picture.weights, *e.picture.others.values())]
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
        ("KL", ["kind part", "slot regularizer", "coef", "number at least 0, default 0.04", "k1 or k2 or k3, default k3",
                "needs  ref_logp", "multirole-r1", "from policyopt.parts.regularizer.kl import KL"]),
        ("Schedule", ["slot controller", "steps  whole number at least 1, must be given", "grpo-d"]),
        ("chain_sum", ["kind testbed", "policyopt train grpo --task chain_sum", "question", "=?", "#### "]),
        ("ties", ["kind testbed", "solution"]),
        ("rl-subnetworks", ["kind study", "policyopt train grpo --with rl-subnetworks", "probes  UpdateSparsity",
                            "precision  default bfloat16", "general knowledge", "sparsity = 1"]),
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
    assert page.locator(".panels figure h3").all_inner_texts() == ["ppo", "grpo"]
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
    assert errors == []
    assert requests == [path.as_uri()]


def test_the_page_shows_text_as_text() -> None:
    e = explain(grpo().replace(surrogate=PPOClip(low=0.1), aggregate=TokenMean(), name="<b>mine</b>"))
    assert e.facts.parent is None and e.other is None and not e.differences
    page = render(e)
    assert "<b>mine" not in page and "&lt;b&gt;mine" in page
