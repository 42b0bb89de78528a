"""The page of a comparison: its numbers and words, its files, and the page itself in a browser."""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from policyopt.comparing.answers import QUESTIONS, answered, weighed
from policyopt.comparing.curves import Curve, band, charts, front, look, pareto
from policyopt.comparing.measures import measures
from policyopt.comparing.page import costs, render, signed, verdicts, write_page
from policyopt.comparing.results import Comparison, Interval, Line, Measure
from policyopt.comparing.statistics import lines
from policyopt.comparing.tables import write_tables
from policyopt.training.logging import RunLog, RunRecord, read_run
from tests.contrast import check_readable

EVIL = "</script><script>window.pwned = 1</script><!-- <img src=x onerror='window.pwned = 2'> {{ 7 * 7 }} \u2028 & \""
NAMES = ("grpo", "gspo", "dapo", "cispo", "rloo", "gmpo", "tis", "minirl")


def write_run(folder: Path, i: int, seed: int, steps: int, evil: str = "", questions: int = 64) -> RunRecord:
    """A finished run of contender ``i``, each a little better, slower and longer than the one before."""
    rng = np.random.default_rng((i, seed))
    log = RunLog(folder, tensorboard=False)
    skill = 0.6 + 0.04 * i + 0.02 * rng.standard_normal()
    log.metrics(0, {"eval/accuracy": 0.3})
    for s in range(1, steps + 1):
        done = s / steps
        row = {
            "reward/mean": 0.3 + (skill - 0.3) * done + 0.05 * rng.standard_normal(), "entropy": 0.4 * math.exp(-done * (1 + i / 4)),
            "length/mean": 20.0 + i + 4 * done, "kl/ref": 0.01 * done * i, "signal/groups": 0.9, "grad_norm": 0.5,
            "tokens": 2000.0 + 100 * i, "time/step": 0.4 + 0.1 * i, "time/rollout": 0.2, "time/judge": 0.01,
            "time/score": 0.05, "time/update": 0.1 + 0.1 * i,
        }  # fmt: skip
        if s % max(1, steps // 5) == 0 and s < steps:
            row["eval/accuracy"] = 0.3 + (skill - 0.3) * done
        log.metrics(s, row)
    for r in range(4):
        sign = 1 if r % 2 else -1
        weights = [sign * 0.01 * (1 + j % 3) for j in range(12)]
        log.sample(
            sample(1, "train", r, r % 2 == 1, evil) | {"pieces": [f"{j} " for j in range(12)], "weights": weights}
        )
    right = (rng.random(questions) < skill).tolist()
    for q in range(min(32, questions)):
        log.sample(sample(steps, "after", q, right[q], evil) | {"length": 20 + i})
    log.close()
    (folder / "config.yaml").write_text("eval:\n  samples: 4\n")
    after = {
        "accuracy": float(np.mean(right)), "correct": right, "lengths": rng.poisson(20 + i, questions).tolist(), "n": questions,
        "judged": questions, "length": 20.0 + i, "pass@4": 0.9,
    }  # fmt: skip
    summary = {"steps": steps, "seconds": steps * (0.4 + 0.1 * i), "tokens": steps * (2000 + 100 * i), "after": after}
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "report.html").write_text("")
    return read_run(folder)


def sample(step: int, phase: str, i: int, correct: bool, evil: str) -> dict[str, Any]:
    return {
        "step": step, "phase": phase, "id": f"{phase}-{i}", "prompt": f"What is {i} + 2?{evil}", "answer": str(i + 2),
        "response": f"{i} + 2 = {i + 2 if correct else i}{evil}", "correct": correct, "score": float(correct),
        "reward": float(correct), "reason": f"as judged{evil}", "length": 9, "truncated": False,
    }  # fmt: skip


def made(out: Path, names: tuple[str, ...] = NAMES[:3], seeds: int = 3, steps: int = 10, evil: str = "") -> Comparison:
    """A comparison whose last run is missing."""
    lost = (names[-1], seeds - 1)
    runs = {
        (name, seed): write_run(out / "cells" / f"{i}-seed{seed}", i, seed, steps, evil)
        for i, name in enumerate(names)
        for seed in range(seeds)
        if (name, seed) != lost or seeds == 1
    }
    missing = {} if seeds == 1 else {lost: f"killed{evil}"}
    found = measures(runs, names, range(seeds))
    differing = {"recipe.ratio.part": {name: f"Ratio{i}{evil}" for i, name in enumerate(names)}}
    facts = (("Task", f"sums{evil}"), ("Seeds", str(seeds)))
    return Comparison(out, facts, names, tuple(range(seeds)), runs, missing, found, lines(found, names), differing)


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    return made(tmp_path_factory.mktemp("compare"))


def embedded(page: str) -> dict[str, Any]:
    """The data of the page, read as a browser finds it: up to the first end of a script."""
    found: dict[str, Any] = json.loads(page.split('<script type="application/json" id="data">')[1].split("</script")[0])
    return found


def plain(page: str) -> str:
    return page.replace("\u00a0", " ")


# Curves --------------------------------------------------------------------------------------------------------------


def test_a_band_is_the_interval_of_student() -> None:
    rng = np.random.default_rng(0)
    x, y = np.arange(4.0), rng.standard_normal((5, 4))
    mean, half = band([Curve(x, row) for row in y], x)
    low, high = stats.t.interval(0.95, 4, y.mean(0), stats.sem(y))
    assert np.allclose(mean - half, low) and np.allclose(mean + half, high)
    # Between its points a run is read on the straight line.
    mean, half = band([Curve(np.array([0.0, 10.0]), np.array([1.0, 3.0]))], np.array([5.0]))
    assert mean.tolist() == [2.0] and not len(half), "of one run no interval is known"


def test_curves_stand_over_steps_tokens_and_seconds(comparison: Comparison) -> None:
    for unit, last in (("steps", 10), ("tokens", 10 * 2000), ("seconds", 10 * 0.4)):
        held, *others = charts(comparison, unit)
        assert [s.name for s in held.series] == list(comparison.contenders)
        assert [c.id for c in others] == ["reward", "length", "entropy", "kl", "signal", "grad"]
        base = held.series[0]
        assert base.x[0] == 0 and base.y[0] == pytest.approx(0.3)
        # The last evaluation of a run is in its summary alone.
        ends = [run.summary["after"]["accuracy"] for (name, _), run in comparison.runs.items() if name == "grpo"]
        assert last * 0.97 <= base.x[-1] <= last * 1.001
        assert base.y[-1] == pytest.approx(np.mean(ends), abs=0.03 if unit != "steps" else 1e-3)
        assert all(len(s.x) == len(s.y) == len(s.low) == len(s.high) for c in (held, *others) for s in c.series)
        assert all(0 <= v <= 1 for s in held.series for v in (*s.low, *s.high))
    # Contenders differ in what a step takes: over seconds the slower one goes on for longer.
    reward = charts(comparison, "seconds")[1]
    assert reward.series[1].x[-1] > reward.series[0].x[-1] * 1.2


def test_runs_of_unequal_length_are_compared_as_far_as_all_go(tmp_path: Path) -> None:
    c = made(tmp_path, ("grpo", "gspo"), 3)
    short = write_run(tmp_path / "short", 0, 1, 6)
    c = replace(c, runs={**c.runs, ("grpo", 1): short})
    reward = charts(c, "steps")[1]
    assert reward.series[0].x[-1] == 6 and reward.series[1].x[-1] == 10


def test_every_contender_has_a_look_of_its_own() -> None:
    looks = [look(i) for i in range(16)]
    assert len(set(looks)) == 16 and looks[0] == ("grey", "line")


def test_the_front_is_made_of_those_that_none_beats_in_both(comparison: Comparison) -> None:
    points = {"a": (10.0, 0.5), "b": (12.0, 0.4), "c": (15.0, 0.9), "d": (15.0, 0.8), "e": (9.0, 0.1), "f": (20.0, 0.9)}
    assert pareto(points) == ["e", "a", "c"]
    chart = front(comparison)
    assert chart is not None
    line, *found = chart.series
    assert line.style == "faint" and [s.name for s in found] == ["grpo", "gspo", "dapo"]
    length = next(x for x in comparison.lines if (x.metric, x.contender) == ("length", "gspo"))
    assert (found[1].left, found[1].right) == ([length.value.low], [length.value.high])
    alone = replace(comparison, lines=tuple(x for x in comparison.lines if x.contender == "grpo"))
    assert front(alone) is None


# Words and numbers ---------------------------------------------------------------------------------------------------


def line(
    contender: str, mean: float, change: float | None = None, holm: float = 0.01, words: str = "", **more: Any
) -> Line:
    v = Interval(mean, mean - 0.1, mean + 0.1)
    d = None if change is None else Interval(change, change - 0.1, change + 0.1)
    known = None if change is None else holm
    return Line(more.get("metric", "accuracy"), contender, v, mean, (mean,), d, known, known, d, more.get("can"), words)


def test_the_verdict_says_who_differs_and_what_could_not_be_told(comparison: Comparison) -> None:
    m = Measure("accuracy", "accuracy", {}, True, "percent")
    found = [line("a", 0.5), line("b", 0.7, 0.2, words="higher by 20.0 points (10.0 to 30.0)")]
    other = [
        line(n, 0.5, 0.0, 0.7, f"no difference seen: 5 seeds could have seen {k} points", can=k / 100)
        for n, k in (("c", 4), ("d", 6))
    ]
    c = replace(comparison, contenders=("a", "b", "c", "d"), measures=(m,), lines=(*found, *other))
    [(metric, said)] = verdicts(c)
    assert metric == "Accuracy"
    assert plain(said) == (
        "a has 50.0 %. b: higher by 20.0 points (10.0 to 30.0); c: no difference seen: 5 seeds could have seen 4 points; "
        "d: no difference seen: 5 seeds could have seen 6 points."
    )
    # Many of which nothing is seen are told together.
    c = replace(c, contenders=("a", "b", "c", "d", "e"), lines=(*c.lines, line("e", 0.5, 0.0, 1.0, "…", can=0.05)))
    [(_, said)] = verdicts(c)
    assert plain(said).endswith("; no difference seen for c, d and e (4.0 to 6.0 points could have been seen).")


def test_only_a_difference_that_is_seen_is_marked(comparison: Comparison) -> None:
    for higher, change, holm, mark in (
        (True, 0.2, 0.01, "better"),
        (True, -0.2, 0.01, "worse"),
        (False, -0.2, 0.01, "better"),
        (None, 0.2, 0.01, "other"),
        (True, 0.2, 0.051, ""),
        (True, 0.2, math.nan, ""),
    ):
        m = Measure("accuracy", "accuracy", {}, higher, "percent")
        c = replace(comparison, measures=(m,), lines=(line("grpo", 0.5), line("gspo", 0.7, change, holm)))
        page = render(replace(c, contenders=("grpo", "gspo")))
        assert f'<span class="delta {mark}">' in page, (higher, change, holm)


def test_changes_have_a_sign_and_shares_are_in_points() -> None:
    assert [plain(signed(x, f)) for x, f in ((0.021, "percent"), (-1.5, "seconds"), (1470, "integer"), (0.0, "percent"))] == [
        "+2.1 points", "−1.50 s", "+1,470", "0.0 points",
    ]  # fmt: skip


def test_costs_are_means_over_all_steps(comparison: Comparison) -> None:
    grpo, gspo, _ = costs(comparison)
    assert (plain(grpo["seconds"]), plain(gspo["seconds"]), grpo["tokens"]) == ("0.40 s", "0.50 s", "2,000")
    assert dict(grpo["shares"])["sampling"].startswith("50")
    assert plain(grpo["thousand"]) == "0.20 s"
    assert gspo["tokens_wide"] == pytest.approx(100 * 2100 / 2200)
    # Parts of a bar are of the same whole as the bars: the longest step.
    assert sum(width for _, _, width in gspo["parts"]) == pytest.approx(100 * 0.46 / 0.6)


def test_questions_are_those_on_which_they_differ_most(comparison: Comparison) -> None:
    questions = answered(comparison)
    assert len(questions) == QUESTIONS
    assert {q.seed for q in questions} == {0}, "the last seed lacks a run"
    assert all(set(q.by) == set(comparison.contenders) and 0 < q.right < 3 for q in questions)


def test_weights_are_shown_of_the_same_response_where_all_drew_it(comparison: Comparison) -> None:
    shown = weighed(comparison)
    assert [x["contender"] for x in shown] == list(comparison.contenders)
    for x in shown:
        up, down = x["responses"]
        assert (up["response"], down["response"]) == ("1 + 2 = 3", "0 + 2 = 0")
        assert min(up["weights"]) > 0 > max(down["weights"]) and len(up["pieces"]) == 12


def test_the_page_tells_what_is_missing(comparison: Comparison, tmp_path: Path) -> None:
    page = render(comparison)
    assert "Missing: dapo, seed 2: killed" in page
    assert "There is one seed" not in page
    page = plain(render(made(tmp_path, seeds=1)))
    assert "There is one seed: how far runs differ by chance is not known" in page
    assert "nan" not in re.sub(r"<style>.*?</style>", "", page, flags=re.S).lower().replace("finance", "")


def test_files_hold_the_numbers(comparison: Comparison) -> None:
    page = write_page(comparison)
    table, seeds, everything = write_tables(comparison)
    assert all(
        f'href="{p.name}"' in page.read_text("utf-8") and p.parent == page.parent for p in (table, seeds, everything)
    )
    rows = list(csv.DictReader(table.open()))
    assert len(rows) == len(comparison.lines)
    gspo = next(r for r in rows if (r["metric"], r["contender"]) == ("accuracy", "gspo"))
    found = next(x for x in comparison.lines if (x.metric, x.contender) == ("accuracy", "gspo"))
    assert found.difference is not None
    assert float(gspo["difference high"]) == found.difference.high and gspo["words"] == found.words
    values = [r for r in csv.DictReader(seeds.open()) if (r["metric"], r["contender"]) == ("accuracy", "dapo")]
    assert [r["seed"] for r in values] == ["0", "1", "2"] and values[2]["value"] == "", "a run that is missing"
    assert float(values[0]["value"]) == pytest.approx(comparison.runs["dapo", 0].summary["after"]["accuracy"])
    data = json.loads(everything.read_text("utf-8"))
    assert data["missing"] == [{"contender": "dapo", "seed": 2, "reason": "killed"}]
    assert data["lines"][0]["value"]["mean"] == comparison.lines[0].value.mean
    assert data["differing"] == comparison.differing


def test_eight_contenders_with_ten_seeds_stay_below_two_megabytes(tmp_path: Path) -> None:
    c = made(tmp_path, NAMES, 2, 200)
    runs = {(name, seed): c.runs.get((name, seed % 2), c.runs[NAMES[0], 0]) for name in NAMES for seed in range(10)}
    for run in runs.values():
        for s in run.samples:
            s["response"] = "字" * 5000
            if s["phase"] == "train":
                s |= {"pieces": ["字"] * 5000, "weights": [0.001234 * len(s["id"])] * 5000}
    page = render(replace(c, seeds=tuple(range(10)), runs=runs))
    assert 200_000 < len(page.encode()) < 2_000_000
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page), "nothing is fetched from elsewhere"
    drawn = embedded(page)["views"]["tokens"]
    assert all(len(s["x"]) <= 120 for chart in drawn for s in chart["series"])


# The page in a browser -----------------------------------------------------------------------------------------------


class Visit:
    """A page in a browser, with everything it complained of and asked for."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.page = browser.new_page(**options)
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda m: self.errors.append(m.text))
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        self.page.on("request", lambda r: self.requests.append(r.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_function("document.querySelectorAll('.plot svg').length > 0")


def test_the_page_in_a_browser(browser: Any, comparison: Comparison) -> None:
    visit = Visit(browser, write_page(comparison), viewport={"width": 1200, "height": 900}, color_scheme="light")
    page = visit.page
    assert page.locator(".plot svg").count() == 8
    held = page.locator('[data-chart="accuracy"]')
    assert held.locator("path.band").count() == 3
    assert held.locator("path.line").count() == 3
    assert "step" in held.locator("svg text.unit").all_text_contents()
    # The switch puts all curves over what it says.
    page.click('[data-unit="tokens"]')
    assert page.get_attribute('[data-unit="tokens"]', "aria-pressed") == "true"
    assert page.get_attribute('[data-unit="steps"]', "aria-pressed") == "false"
    assert "tokens drawn" in held.locator("svg text.unit").all_text_contents()
    assert "20,000" in held.locator("svg text.x").all_text_contents()
    # A contender that is switched off leaves all charts; the last one to go brings all back.
    page.click('[data-contender="gspo"]')
    assert held.locator("path.line").count() == 2 and held.locator("path.line.c-main").count() == 0
    page.click('[data-contender="grpo"]')
    page.click('[data-contender="dapo"]')
    assert held.locator("path.line").count() == 3
    # A point says its mean and its interval.
    page.click('[data-unit="steps"]')
    held.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert held.locator(".value-head").inner_text() == "step 2"
    assert re.fullmatch(r"grpo\n3\d\.\d % \(\d+\.\d to \d+\.\d\)", held.locator(".value").first.inner_text())
    # Error bars in both directions, and the names beside the points.
    shape = page.locator('[data-chart="front"]')
    assert shape.locator("line.whisker").count() == 6
    assert set(shape.locator("text.name").all_text_contents()) == {"grpo", "gspo", "dapo"}
    # Tokens carry their weights.
    box = page.locator("[data-picture] .text").first
    up, down = (page.locator("[data-picture] .text").nth(i).locator("span").first for i in (0, 1))
    colours = {x.evaluate("e => getComputedStyle(e).backgroundColor") for x in (up, down)}
    assert len(colours) == 2 and "rgba(0, 0, 0, 0)" not in colours
    box.focus()
    page.keyboard.press("ArrowRight")
    assert 'token 1 of 12, "0 ": w = 0.01' in page.locator("[data-picture] .readout").first.inner_text()
    assert not page.evaluate(
        "[...document.querySelectorAll('.plot svg *')].some(e => /NaN|undefined/.test(e.outerHTML))"
    )
    assert visit.errors == [] and len(visit.requests) == 1
    check_readable(page)


def test_a_phone_never_scrolls_sideways(browser: Any, tmp_path: Path) -> None:
    c = made(tmp_path, NAMES, 3)
    page = Visit(browser, write_page(c), viewport={"width": 390, "height": 800}, color_scheme="dark").page
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    # The table of a metric has become a list: what a column says stands beside each number.
    cell = page.locator(".lines td[data-name=Difference]:not(:empty)").first
    assert "Difference" in cell.evaluate("e => getComputedStyle(e, '::before').content")
    box = cell.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390


def test_hostile_text_is_shown_and_does_not_run(browser: Any, tmp_path: Path) -> None:
    visit = Visit(browser, write_page(made(tmp_path, evil=EVIL)))
    page = visit.page
    assert EVIL in page.locator(".answer .text").first.text_content()
    assert EVIL in page.locator(".warnings").text_content() and EVIL in page.locator(".differing").text_content()
    assert page.locator("main img, main script").count() == 0
    assert page.evaluate("window.pwned") is None and visit.errors == []
