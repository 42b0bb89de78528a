"""What the benchmark of docs/lengths.md says of runs, on numbers that were made up; and one that it measures, in small."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from policyopt.comparing.measures import measures
from policyopt.comparing.results import Comparison, Interval
from policyopt.comparing.statistics import lines
from policyopt.methods.length.cot_length_optimal import cot_length_optimal
from tests.comparing.grids import made_run

FOLDER = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.usefixtures("benchmarks")


def compared(right: dict[str, float], lengths: dict[str, float], seeds: int = 5, questions: int = 400) -> Comparison:
    """Runs with these shares of right answers, each of them on the same questions, and answers of about these lengths."""
    runs = {}
    for name in right:
        for seed in range(seeds):
            shift = seed / 50 - 0.04
            correct = [i < right[name] * questions for i in range(questions)]
            each = [lengths[name] * (1 + shift) + i % 3 - 1 for i in range(questions - 1)] + [
                lengths[name] * (1 + shift)
            ]
            runs[name, seed] = made_run((0.5, right[name]), correct=correct, length=lengths[name], lengths=each)
    names, which = tuple(right), tuple(range(seeds))
    measured = measures(runs, names, which)
    return Comparison(Path("x"), (), names, which, runs, {}, measured, lines(measured, names), {})


def test_the_table_says_who_is_shorter_and_who_lost_nothing() -> None:
    import length

    found = compared(
        {"grpo": 0.9, "kept": 0.9, "lost": 0.8, "barely": 0.9}, {"grpo": 60, "kept": 30, "lost": 24, "barely": 54}
    )
    made = length.rows(found)
    assert [r.name for r in made] == ["grpo", "lost", "kept", "barely"], (
        "the first one first, the others from short to long"
    )
    by = {r.name: r for r in made}
    assert by["kept"].cut == pytest.approx(0.5, abs=0.01) and by["lost"].cut == pytest.approx(0.6, abs=0.01)
    assert by["kept"].holds and by["barely"].holds and not by["lost"].holds and not by["grpo"].holds
    text = length.table(made)
    assert "| `kept` | 90.0 % (" in text and "| 50% | +0.0 (+0.0 to +0.0) | yes |" in text
    assert "| 60% | -10.0 (" in text and text.endswith("within two points: `kept`.")


def test_two_points_are_held_by_the_interval_and_not_by_the_mean() -> None:
    import length

    one = Interval(0.9, 0.88, 0.92)
    lost = length.Row("x", one, one, Interval(-0.01, -0.021, 0.001), 0.5)
    kept = length.Row("x", one, one, Interval(-0.01, -0.019, -0.001), 0.5)
    assert not lost.holds and kept.holds


def test_the_picture_has_every_name_and_none_over_another() -> None:
    import front

    points = {f"name{i}": (Interval(30 + i / 9, 28, 33), Interval(0.9 + i / 900, 0.88, math.nan)) for i in range(12)}
    drawn = front.draw(points, "tokens", "right")
    assert "prefers-color-scheme:dark" in drawn
    texts = [
        x for x in ElementTree.fromstring(drawn).iter() if x.tag.endswith("text") and str(x.text).startswith("name")
    ]
    assert [x.text for x in texts] == [*points]
    places = np.array([(float(x.attrib["x"]), float(x.attrib["y"])) for x in texts])
    apart = np.abs(places[:, None] - places[None])
    width = front.WIDE * len("name0")
    assert not ((apart[..., 0] < width - 1) & (apart[..., 1] < front.HIGH - 1))[~np.eye(12, dtype=bool)].any()


def test_a_section_of_the_page_is_written_and_the_others_stay(tmp_path: Path) -> None:
    import length

    path = tmp_path / "length.md"
    length.written("optimum", "one\n\ntwo", path)
    length.written("methods", "three", path)
    length.written("optimum", "four\n\nfive", path)
    assert [x.strip() for x in path.read_text().split("##")][1:] == [
        "Methods against grpo\n\nthree", "The best length of a chain of thought\n\nfour\n\nfive",
    ]  # fmt: skip


def test_a_trained_policy_ends_within_a_step_of_the_closed_form(tmp_path: Path) -> None:
    import length

    chain: Any = (2.0, 1.0, 0.1)
    best = cot_length_optimal(*chain)
    found = length.trained_length(chain, tmp_path / "run", steps=50, batch=64)
    assert 5 < best < 7 and abs(found - best) < 1, f"{found} steps, and the best are {best}"


def test_the_page_has_the_tables_of_the_results() -> None:
    page = (FOLDER.parent / "docs" / "lengths.md").read_text("utf-8")
    rows = [x for x in (FOLDER / "results" / "length.md").read_text("utf-8").splitlines() if x.startswith("| ")]
    assert len(rows) > 12 and [x for x in rows if x not in page] == []
