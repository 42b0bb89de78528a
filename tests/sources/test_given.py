"""Sources of given texts: which rows they make of what a task brings, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import policyopt as po
from policyopt.errors import UserError
from policyopt.parts import Likelihood, TokenMean
from policyopt.parts.select.rows import FromProgram
from policyopt.recipe import Recipe, recipe_from_dict
from policyopt.rows import Batch
from policyopt.schema import forgotten
from policyopt.sources.given import Labelled, Mismatched, PreferencePairs, Scored, Triples
from policyopt.sources.source import Source
from policyopt.training.config import TrainConfig
from policyopt.training.loop import Trainer
from policyopt.training.run import run


def learns(source: Source) -> Recipe:
    return Recipe(source=source, aggregate=TokenMean(), regularizers=(Likelihood(coef=1.0, rows=None),), name="by-hand")


@pytest.fixture
def drawn(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the first step of a recipe is trained on, given rows with ``#`` for a number of each."""

    def draw(recipe: Recipe, row: dict[str, Any], *odd: dict[str, Any], **changes: Any) -> Batch:
        found: list[Batch] = []
        monkeypatch.setattr(Trainer, "sample", lambda self, batch, *_: found.append(batch))
        rows = [*odd, *(json.loads(json.dumps(row).replace("#", chr(97 + i))) for i in range(12 - len(odd)))]
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(r) + "\n" for r in rows))
        held = tmp_path / "held.jsonl"
        held.write_text(json.dumps(json.loads(json.dumps(row).replace("#", "z"))) + "\n")
        settings: dict[str, Any] = {
            "steps": 1, "batch": 12, "max_tokens": 16, "device": "cpu", "eval": {"samples": 0}, "eval_task": str(held),
        }  # fmt: skip
        run(
            TrainConfig(
                recipe=recipe, model=str(tiny_model), task=str(path), out=tmp_path / "run", **settings | changes
            ),
            quiet=True,
        )
        return found[0]

    return draw


def texts(batch: Batch) -> list[str]:
    return [record["response"] for record in batch.records or ()]


def asked(batch: Batch) -> list[str]:
    return [record["prompt"] for record in batch.records or ()]


def test_a_labelled_text_is_a_row_with_its_label(drawn: Any) -> None:
    bad = {"prompt": "!?", "completion": "bad", "label": False}
    batch = drawn(learns(Labelled()), {"prompt": "#?", "completion": "yes #", "label": True}, bad)
    rows = dict(zip(texts(batch), zip(batch.reward.tolist(), batch.chosen.tolist(), strict=True), strict=True))
    assert len(batch) == len(rows) == len(batch.group.unique()) == 12
    assert rows.pop("bad") == (0, 0) and set(rows.values()) == {(1, 1)}


def test_mismatched_rows_have_the_text_of_the_next_prompt(drawn: Any) -> None:
    batch = drawn(learns(Mismatched()), {"prompt": "#?", "completion": "#", "label": True}, batch=6)
    main = FromProgram()(batch).tolist()
    assert main == [True, False] * 6 and len(batch.group.unique()) == 6
    own, other = texts(batch)[::2], texts(batch)[1::2]
    assert [f"{text}?" for text in own] == asked(batch)[::2] == asked(batch)[1::2]
    assert other == [*own[1:], own[0]], "shifted by one inside the step"
    assert batch.reward.tolist() == batch.chosen.tolist() == [1, 0] * 6


def test_a_step_of_one_prompt_has_no_mismatched_text(drawn: Any) -> None:
    with pytest.raises(ValueError, match=r"a step has 1 prompts .*, and Mismatched needs 2: raise batch"):
        drawn(learns(Mismatched()), {"prompt": "#?", "completion": "#", "label": True}, batch=1)


def test_all_scored_responses_are_a_group(drawn: Any) -> None:
    more = {"prompt": "!?", "responses": ["x", "y", "z"], "scores": [0, -1.5, 4]}
    row = {"prompt": "#?", "responses": ["good #", "poor #"], "scores": [7, 2]}
    batch = drawn(learns(Scored(size=1)), row, more)
    said = {
        text: (group, reward) for text, group, reward in zip(texts(batch), batch.group.tolist(), batch.reward.tolist())
    }
    assert len(batch) == 3 + 2 * 11 and batch.chosen is None
    assert [said[x][1] for x in "xyz"] == [0, -1.5, 4] and len({said[x][0] for x in "xyz"}) == 1
    assert (said["good b"][1], said["poor b"][1]) == (7, 2) and said["good b"][0] == said["poor b"][0] != said["x"][0]


def test_a_third_text_is_of_another_origin(drawn: Any) -> None:
    row = {"prompt": "#?", "chosen": "good #", "rejected": "poor #", "completion": "best #"}
    batch = drawn(learns(Triples()), row)
    pairs, third = (batch[FromProgram(main=main)(batch)] for main in (True, False))
    assert len(pairs) == 8 and {x.split()[0] for x in texts(third)} == {"best"}
    assert {(x.split()[0], c, r) for x, c, r in zip(texts(pairs), pairs.chosen.tolist(), pairs.reward.tolist())} == {
        ("good", 1, 1), ("poor", 0, 0),
    }  # fmt: skip
    assert not third.reward.any() and not third.chosen.any()
    assert third.group.tolist() == pairs.group.unique().tolist(), "they share their prompt"


def test_numbers_of_a_side_and_of_a_pair_become_columns(drawn: Any) -> None:
    row = {
        "prompt": "#?",
        "chosen": "good",
        "rejected": "poor",
        "chosen_helpful": 2,
        "helpful_rejected": "-1",
        "gap": 3.5,
    }
    with forgotten():
        for name in ("helpful", "gap"):
            po.column(name, sentence="a number of the data", filled_by="program")
        recipe = learns(PreferencePairs(columns=("helpful", "gap")))
        assert recipe_from_dict(recipe.to_dict()) == recipe
        assert recipe.provides >= {"chosen", "helpful", "gap"}
        plain, batch = learns(PreferencePairs()), drawn(recipe, row)
        assert {(x, h) for x, h in zip(texts(batch), batch.helpful.tolist())} == {("good", 2), ("poor", -1)}
        assert set(batch.gap.tolist()) == {3.5} and "helpful" not in plain.provides


def test_a_number_that_is_missing_is_named_before_the_run(drawn: Any, tmp_path: Path) -> None:
    row = {"prompt": "#?", "chosen": "good", "rejected": "poor", "chosen_helpful": 2, "rejected_helpful": 1}
    odd = row | {"prompt": "!?", "rejected_helpful": "high"}
    with forgotten():
        po.column("helpful", sentence="a number of the data", filled_by="program")
        with pytest.raises(UserError) as error:
            drawn(learns(PreferencePairs(columns=("helpful",))), row, odd)
    assert str(error.value) == (
        "rows.jsonl, line 1: no number in rejected_helpful or helpful_rejected or helpful, for the column 'helpful', which "
        "PreferencePairs reads"
    )
    assert not (tmp_path / "run").exists()


ROWS = {
    "pairs": {"prompt": "#?", "chosen": "good", "rejected": "poor"},
    "scores": {"prompt": "#?", "responses": ["a", "b"], "scores": [1, 2]},
}


@pytest.mark.parametrize(
    ("source", "row", "long", "name"),
    [
        (PreferencePairs(), ROWS["pairs"], {"rejected": "x" * 300}, "rejected has 301 tokens, 5 stand before it"),
        (
            Scored(size=1),
            ROWS["scores"],
            {"responses": ["a", "x" * 300]},
            "a response has 301 tokens, 5 stand before it",
        ),
    ],
)
def test_a_text_that_does_not_fit_into_the_context_is_refused_or_skipped(
    source: Source, row: dict[str, Any], long: dict[str, Any], name: str, drawn: Any, tmp_path: Path
) -> None:
    odd = row | {"prompt": "!?"} | long
    with pytest.raises(UserError) as error:
        drawn(learns(source), row, odd)
    assert f"rows.jsonl, line 1: {name}, and the model's context holds 256" in str(error.value)
    assert "--long-prompts skip" in str(error.value) and not (tmp_path / "run").exists()
    batch = drawn(learns(source), row, odd, long_prompts="skip", batch=22)
    assert len(batch) >= 22 and "!?" not in asked(batch)


def test_a_text_beyond_the_budget_alone_is_cut_and_counted(drawn: Any, tmp_path: Path) -> None:
    batch = drawn(learns(PreferencePairs()), ROWS["pairs"] | {"chosen": "x" * 40})
    assert batch.length().max() == 16 and batch.truncated.tolist() == [1, 0] * 6
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[1])
    assert row["source/texts_cut"] == 6
