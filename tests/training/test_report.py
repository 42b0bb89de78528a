"""The report of a run: its numbers, and the page itself in a browser."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyopt.errors import UserError
from policyopt.training.charts import length_chart, other_charts, sections, written
from policyopt.training.intervals import difference, paired, wilson
from policyopt.training.logging import RunLog, read_run
from policyopt.training.report import MAX_SAMPLES, MAX_TEXT, pick_samples, render, write_report
from tests.contrast import check_readable

HOSTILE = (
    '</script><script>window.pwned = 1</script><!-- <script> <img src=x onerror="window.pwned = 2"> {{ 7 * 7 }} '
    "<style>body{display:none}</style> \u2028 \x00 ' \" & <a href='javascript:window.pwned=3'>"
)
METRICS = (
    "reward/mean", "reward/std", "accuracy", "format", "advantage/std", "signal/groups", "signal/positive",
    "signal/negative", "length/mean", "length/max", "length/truncated", "entropy", "kl/ref", "clip_fraction/low", "clip_fraction/high",
    "grad_norm", "update/size", "mismatch/max", "mismatch/mean", "lr", "tokens_per_s", "time/rollout", "time/judge",
    "time/update", "time/step",
)  # fmt: skip


def sample(step: int, phase: str, i: int, correct: bool, **more: Any) -> dict[str, Any]:
    response = f"{i} + 2 = {i + 2 if correct else i}\n<end>"
    return {
        "step": step, "phase": phase, "id": f"chain_sum-{i}", "response": response,
        "prompt": [{"role": "user", "content": f"What is {i} + 2?"}], "answer": str(i + 2),
        "reward": float(correct), "correct": correct, "reason": "as judged", "length": 9, "truncated": False,
    } | more  # fmt: skip


def write_run(folder: Path, *, steps: int = 20, hostile: bool = False) -> Path:
    """A finished run with every metric; ``hostile`` puts markup wherever text of a model or a user can stand."""
    evil = HOSTILE if hostile else ""
    log = RunLog(folder, tensorboard=False)
    for i in range(4):
        log.sample(sample(0, "before", i, i == 0))
    for s in range(1, steps + 1):
        row: dict[str, float] = dict.fromkeys(METRICS, 0.5 + s / (4 * steps))
        row |= {"judge/failed": 0, "prompts": 16, "responses": 128, "mine/temperature" + evil: 1 / s}
        if s % 5 == 0:
            row |= {"eval/accuracy": 0.6, "eval/pass@8": 0.9, "eval/length": 12.0, "eval/format": 1.0, "time/eval": 0.3}
        log.metrics(s, row)
    text = evil or "3 + 2 = 5"
    pieces = {"pieces": [text, "<b>bold</b>", "\n"], "weights": [0.02, -0.01, math.nan]}
    fields = {"id": evil or "chain_sum-3", "prompt": text, "response": text, "answer": text, "reason": text}
    log.sample(sample(5, "train", 3, True, **pieces) | fields)
    for i in range(30):
        log.sample(sample(5, "train", i, i % 2 == 0))
    for i in range(4):
        log.sample(sample(steps, "after", i, i != 1))
    log.close()
    (folder / "config.yaml").write_text(f"method: grpo\nseed: 7\nnote: {json.dumps(evil)}\n")
    ends = {
        phase: {
            "accuracy": a,
            "pass@8": 0.9,
            "length": 12.0,
            "format": 1.0,
            "n": 256,
            "lengths": [10 + i % 7 for i in range(256)],
        }
        for phase, a in (("before", 106 / 256), ("after", 228 / 256))
    }
    summary = {
        "method": "grpo",
        "model": evil or "embedded",
        "task": "chain_sum",
        "seed": 7,
        "steps": steps,
        "seconds": 88.0,
    }
    (folder / "summary.json").write_text(json.dumps(summary | ends | {"stopped": "finished", "version": "0.1.0"}))
    return folder


def words(page: str) -> str:
    return page.replace("\u00a0", " ")


# Numbers


def test_wilson_interval() -> None:
    # 8 of 10: (0.4902, 0.9433), in any table of the Wilson score interval
    assert wilson(0.8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(1.0, 20)[1] == 1.0
    assert wilson(0.0, 20)[0] == 0.0


def test_interval_of_a_difference() -> None:
    # Newcombe 1998, table II, example (a), method 10: 56/70 - 48/80 lies in 0.0524 to 0.3339
    assert difference(48 / 80, 80, 56 / 70, 70) == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_interval_of_a_paired_difference() -> None:
    # Newcombe 1998, Statistics in Medicine 17, 2635-2650: of 50 pairs 36 both, 12 and 2 one alone, 0 neither;
    # method 10 gives 0.0569 to 0.3404.
    before, after = [True] * 38 + [False] * 12, [True] * 36 + [False] * 2 + [True] * 12
    assert paired(before, after) == pytest.approx((0.0569, 0.3404), abs=1e-4)
    # The same questions right both times: a change is seen to be small although either share is uncertain.
    same = [i % 2 == 0 for i in range(200)]
    low, high = paired(same, same)
    wide = difference(0.5, 200, 0.5, 200)
    assert low == -high and high < 0.2 * wide[1]
    with pytest.raises(ValueError, match="argument 2 is longer"):
        paired([True], [True, False])


def test_what_came_of_each_question_narrows_the_interval(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path))
    run.summary["before"]["correct"] = [i < 106 for i in range(256)]
    run.summary["after"]["correct"] = [i < 228 for i in range(256)]
    assert "(+47.7 points, 95 % interval +41.2 to +53.5, paired over the same 256 questions)" in words(render(run))
    # Where a question has no reward, before or after, shares and pairs are over other questions: no pairing.
    run.summary["after"]["correct"][3] = None
    assert "over 256 and 256 responses taken as independent" in words(render(run))
    run.summary["before"]["correct"][3] = None
    assert "paired over the same 255 questions" in words(render(run))


def test_verdict_claims_a_difference_only_outside_the_noise(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path))
    page = words(render(run))
    assert (
        "Held-out accuracy rose from 41.4 % to 89.1 % (+47.7 points, 95 % interval +40.1 to +54.4, over 256 and 256 responses taken as "
        "independent)." in page
    )
    assert "95 % interval 35.5 to 47.5 %, 256 prompts" in page
    run.summary["after"]["accuracy"] = 112 / 256
    assert "No difference seen: held-out accuracy went from 41.4 % to 43.8 %" in words(render(run))
    run.summary["after"]["accuracy"] = 20 / 256
    assert "Held-out accuracy fell from 41.4 % to 7.8 % (−33.6 points" in words(render(run))


def test_every_planned_metric_has_its_chart(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path))
    charts = {c.id: c for _, cs in sections(run) for c in cs}
    assert set(charts) == {
        "accuracy", "reward", "length", "lengths", "format", "entropy", "signal", "mass", "advantage", "kl", "grad",
        "update", "clip", "mismatch", "lr", "time", "speed",
    }  # fmt: skip
    held = next(s for s in charts["accuracy"].series if s.name == "held-out")
    # Before training stands at step 0; at the last step the row of that step counts.
    assert list(held.x) == [0, 5, 10, 15, 20]
    assert list(held.y) == pytest.approx([106 / 256, 0.6, 0.6, 0.6, 0.6])
    # Each with the interval of a share of 256 questions.
    assert (held.low[0], held.high[0]) == pytest.approx(wilson(106 / 256, 256))
    up, down = charts["mass"].series
    assert min(up.y) > 0 > max(down.y)
    assert charts["mismatch"].log
    assert not charts["kl"].log
    assert [s.name for s in charts["time"].series] == ["sampling", "update", "judging", "evaluation"]
    # What no chart knows is drawn too, unless it never changes.
    assert [c.title for c in other_charts(run)] == ["mine/temperature"]
    assert "from" in charts["accuracy"].label
    assert "held-out" in charts["accuracy"].label


def test_a_mismatch_of_zero_takes_a_linear_axis(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path))
    run.metrics[3]["mismatch/mean"] = 0.0
    assert not next(c for _, cs in sections(run) for c in cs if c.id == "mismatch").log


def test_a_long_run_is_thinned_and_keeps_its_mean(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path, steps=1200))
    for _, charts in sections(run):
        for chart in charts:
            assert all(len(s.x) == len(s.y) <= 400 for s in chart.series)
    entropy = next(c for _, cs in sections(run) for c in cs if c.id == "entropy").series[0]
    assert np.mean(entropy.y) == pytest.approx(np.mean([row["entropy"] for row in run.metrics]), rel=1e-3)
    assert "each point is the mean of neighbouring steps" in render(run)


def test_length_histogram_counts_every_response_once(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path))
    run.summary["before"]["lengths"] = [3] * 30 + [4] * 10
    run.summary["after"]["lengths"] = [200] * 5
    chart = length_chart(run)
    assert chart is not None
    before, after = chart.series
    assert sum(before.y) == pytest.approx(1)
    assert sum(after.y) == pytest.approx(1)
    assert len(before.x) <= 41
    assert before.x == after.x  # the same bins, or the bars would not compare
    run.summary["before"]["lengths"], run.summary["after"]["lengths"] = [3, 3, 3, 4], [5]
    narrow = length_chart(run)
    assert narrow is not None
    assert dict(zip(narrow.series[0].x, narrow.series[0].y, strict=True)) == {
        3: 0.75,
        4: 0.25,
        5: 0,
    }
    run.summary["before"]["lengths"] = list(range(200_000))
    assert len(json.dumps([s.y for s in length_chart(run).series])) < 4000  # type: ignore[union-attr]


def test_samples_are_capped_evenly(tmp_path: Path) -> None:
    samples = [{"phase": "before", "i": i} for i in range(30)]
    samples += [{"phase": "train", "i": i} for i in range(5000)] + [{"phase": "after", "i": i} for i in range(500)]
    kept = pick_samples(samples)
    assert len(kept) == MAX_SAMPLES
    count = {p: sum(s["phase"] == p for s in kept) for p in ("before", "train", "after")}
    assert count == {"before": 30, "after": 85, "train": 85}
    train = [s["i"] for s in kept if s["phase"] == "train"]
    assert train == sorted(train)
    assert train[0] == 0
    assert train[-1] > 4900
    assert pick_samples(samples[:20]) == samples[:20]
    assert pick_samples([]) == []
    folder = write_run(tmp_path)
    with RunLog(folder, tensorboard=False) as log:
        for i in range(300):
            log.sample(sample(9, "train", i, False, response="x" * (MAX_TEXT + 5 if i % 20 == 0 else 5)))
    page = render(read_run(folder))
    assert "200 of 339 samples, evenly spread; 139 more are in" in page
    assert "[5 more characters in samples.jsonl]" in page
    assert "x" * (MAX_TEXT + 1) not in page


@pytest.mark.parametrize("keep", ["config.yaml", "metrics.jsonl", "summary.json"])
def test_any_one_file_of_a_run_makes_a_report(tmp_path: Path, keep: str) -> None:
    write_run(tmp_path)
    for file in tmp_path.iterdir():
        if file.name != keep:
            file.unlink()
    page = write_report(tmp_path).read_text("utf-8")
    assert ("This run has no summary" in page) == (keep != "summary.json")
    assert not list(tmp_path.glob("*.partial"))


def test_a_killed_run_says_so_and_shows_its_last_evaluation(tmp_path: Path) -> None:
    write_run(tmp_path)
    (tmp_path / "summary.json").unlink()
    with (tmp_path / "metrics.jsonl").open("a") as f:
        f.write('{"step": 21, "signal/groups": 0.0, "update/skipped": 1, "judge/failed": 2, "accuracy": null}\n')
        f.write('{"step": 22, "acc')
    page = words(write_report(tmp_path).read_text("utf-8"))
    assert "still going, or was stopped" in page
    assert "Latest evaluation" in page
    assert "60.0 %" in page
    assert "In 1 of 21 steps all responses to each prompt got the same reward" in page
    assert "In 1 of 21 steps an update was skipped" in page
    assert "In 1 of 21 steps the judge failed on some responses: they have no reward" in page


def test_steps_are_counted_as_they_were_trained(tmp_path: Path) -> None:
    def steps() -> str:
        return words(render(read_run(tmp_path))).split("<dt>Steps</dt><dd>")[1].split("<")[0]

    rows = [{"step": 0, "eval/accuracy": 0.5}, *({"step": s, "signal/groups": 0.0} for s in range(1, 4))]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert steps() == "3"
    # The evaluation before training is no step.
    assert "In 3 of 3 steps all responses to each prompt" in render(read_run(tmp_path))
    # An interrupted run says where it stopped, at 0 too.
    for told in (2, 0):
        (tmp_path / "summary.json").write_text(json.dumps({"steps": told, "after": {"accuracy": 0.5, "n": 4}}))
        assert steps() == str(told)
        held = next(c for _, cs in sections(read_run(tmp_path)) for c in cs if c.id == "accuracy").series[0]
        assert max(held.x) == told


def test_texts_judges_and_controllers_have_charts(tmp_path: Path) -> None:
    row = {"loglik": -2.0, "loglik/chosen": -1.0, "pairs/accuracy": 0.5, "pairs/margin": 0.1, "eval/loglik": -2.5}
    row |= {"component/brief": 0.2, "component/right": 0.9, "control/surrogate.low": 0.2}
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps({"step": s} | row) + "\n" for s in (1, 2)))
    run = read_run(tmp_path)
    found = {title: [c.title for c in charts] for title, charts in sections(run)}
    assert found == {
        "How likely are the texts?": ["Log-likelihood", "Pairs in the right order", "Margin"],
        "What does each judge say?": ["brief", "right"],
        "What do controllers move?": ["surrogate.low"],
    }
    texts = sections(run)[0][1][0]
    assert [(s.name, s.y[0]) for s in texts.series] == [("training", -2.0), ("chosen", -1.0), ("held-out", -2.5)]
    assert texts.unit == "nats per token"
    assert other_charts(run) == []


def test_the_page_stays_below_a_megabyte(tmp_path: Path) -> None:
    folder = write_run(tmp_path, steps=2000)
    with RunLog(folder, tensorboard=False) as log:
        for i in range(250):
            pieces = {"pieces": ["字" * 3] * 900, "weights": [0.001234] * 900}
            log.sample(sample(9, "train", i, True, response="字" * 2700, **pieces))
    page = write_report(folder)
    assert 300_000 < page.stat().st_size < 1_000_000
    shown = embedded(page.read_text("utf-8"))["samples"]
    assert {s["phase"] for s in shown} == {"before", "train", "after"} and len(shown) < 100
    assert f"{len(shown)} of 289 samples, evenly spread" in page.read_text("utf-8")


def test_a_response_without_a_reward_is_neither_right_nor_wrong(tmp_path: Path) -> None:
    write_run(tmp_path)
    rows = [
        {"score": None, "reward": None, "correct": False, "failed": True, "reason": "my.py, line 3"},
        {"score": 0.0, "reward": 0.0},
    ]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = json.loads((tmp_path / "summary.json").read_text())
    summary["after"] |= {"judge/failed": 3, "judged": 40}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    page = write_report(tmp_path).read_text("utf-8")
    assert [(s["rewarded"], s["reward"]) for s in embedded(page)["samples"]] == [(False, None), (True, 0.0)]
    assert "In the evaluation after training the judge failed on 3 responses" in words(page)
    assert "40 prompts" in words(page), "the interval is that of the responses that have a reward"


def test_odd_values_do_not_break_the_page(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "accuracy": NaN, "entropy": "high", "lr": [1]}\n{"accuracy": 1}\n'
    )
    (tmp_path / "samples.jsonl").write_text('{}\n{"prompt": 5, "weights": [1], "pieces": "ab", "reward": Infinity}\n')
    (tmp_path / "summary.json").write_text(
        '{"method": 3, "before": [], "after": {"accuracy": "x", "n": null}, "steps": null}'
    )
    (tmp_path / "config.yaml").write_text("- a list\n")
    data = embedded(write_report(tmp_path).read_text("utf-8"))
    assert [s["reward"] for s in data["samples"]] == [None, None]
    assert data["charts"] == []


def test_no_run_no_report(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not the folder of a run"):
        write_report(tmp_path)
    assert not list(tmp_path.iterdir())


def test_numbers_are_written_for_people() -> None:
    assert [words(written(x, "percent")) for x in (0.8631, 0.00024, 0.0)] == ["86.3 %", "0.024 %", "0.0 %"]
    assert [written(x) for x in (0.123456, 2e-4, 34.61, 12345.6, None)] == ["0.123", "2.0e-04", "34.6", "12,346", "–"]


def embedded(page: str) -> dict[str, Any]:
    """The data of the page, read as a browser finds it: up to the first end of a script."""
    text = page.split('<script type="application/json" id="data">')[1].split("</script")[0]

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_hostile_text_stays_text_in_the_source(tmp_path: Path) -> None:
    page = write_report(write_run(tmp_path, hostile=True)).read_text("utf-8")
    data = embedded(page)
    assert any(s["response"] == HOSTILE for s in data["samples"])
    raw = page.split('<script type="application/json" id="data">')[1].split("</script")[0]
    assert not set("<>&'") & set(raw)
    outside = page.split("<script", 1)[0]
    assert "<img" not in outside
    assert "<a href='javascript" not in outside
    assert "&lt;img src=x onerror=" in outside
    assert "{{ 7 * 7 }}" in outside
    assert page.count("<script") == page.count("</script>") == 2


# The page in a browser


class Visit:
    """A report opened in a browser, with everything it complained of and asked for."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.page = browser.new_page(**options)
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        self.page.on("request", lambda r: self.requests.append(r.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_function("document.querySelectorAll('.plot svg').length > 0")
        self.page.wait_for_timeout(100)


@pytest.fixture(scope="module")
def hostile(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Visit:
    folder = write_run(tmp_path_factory.mktemp("hostile"), hostile=True)
    return Visit(browser, write_report(folder), viewport={"width": 1200, "height": 900})


def test_the_page_is_quiet_and_alone(hostile: Visit) -> None:
    assert hostile.errors == []
    assert all(url.startswith("file://") for url in hostile.requests)
    assert len(hostile.requests) == 1


def test_charts_are_drawn(hostile: Visit) -> None:
    shown = "[...document.querySelectorAll('.plot')].filter(p => !p.closest('details'))"
    page = hostile.page
    assert page.evaluate(f"{shown}.length") == 17
    assert page.evaluate(f"{shown}.filter(p => p.querySelector('path.line, rect.bar-of')).length") == 17
    assert page.evaluate("document.querySelectorAll('.plot[role=img][aria-label^=Chart]').length") == 18
    assert not page.evaluate(
        "[...document.querySelectorAll('.plot svg *')].some(e => /NaN|undefined/.test(e.outerHTML))"
    )
    page.locator("#others summary").click()
    page.wait_for_selector("#others .plot path.line", state="attached")


def test_a_chart_has_axes_and_says_its_values(browser: Any, tmp_path: Path) -> None:
    page = Visit(browser, write_report(write_run(tmp_path))).page
    box = page.locator('[data-chart="accuracy"]')
    texts = box.locator("svg text").all_text_contents()
    assert {"0 %", "80 %", "step", "share of responses"} <= set(texts)
    # The held-out evaluations are marked, at the steps where they were made.
    assert box.locator("circle.points.c-second").count() == 5
    # Under the pointer, at the right edge, stands the last step.
    box.scroll_into_view_if_needed()
    edge = box.bounding_box()
    page.mouse.move(edge["x"] + edge["width"] - 14, edge["y"] + 60)
    tip = box.locator(".value-tip")
    assert tip.inner_text().split("\n")[0] == "step 20"
    assert tip.locator(".value").all_inner_texts()[0].split("\n") == ["training", "75.0 %"]
    assert len(tip.locator(".value").all()) == 3, "training, held-out, pass@8"
    inside = tip.bounding_box()
    assert edge["x"] <= inside["x"] and inside["x"] + inside["width"] <= edge["x"] + edge["width"]
    page.mouse.move(0, 0)
    assert tip.is_hidden()
    box.focus()
    page.keyboard.press("ArrowRight")
    assert tip.inner_text().split("\n")[0] == "step 0"
    # A logarithmic axis has powers of ten.
    (tmp_path / "metrics.jsonl").write_text("".join(f'{{"step": {i}, "mismatch/mean": 1e-{i}}}\n' for i in range(1, 5)))
    page = Visit(browser, write_report(tmp_path)).page
    assert "10⁻⁴" in page.locator('[data-chart="mismatch"] svg text.y').all_text_contents()


def test_the_page_is_readable(browser: Any, tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"stopped": "interrupted"}))
    page = Visit(browser, write_report(folder)).page
    assert page.locator(".warnings").count() == 1
    page.hover('[data-chart="accuracy"]')
    check_readable(page)


def test_hostile_text_is_shown_and_does_not_run(hostile: Visit) -> None:
    page = hostile.page
    page.fill("#f-text", "onerror")
    assert page.locator(".sample").count() == 1
    assert HOSTILE in page.locator(".sample .text").first.text_content()
    assert page.locator(".sample img, .sample script, .sample a, .sample b").count() == 0
    page.mouse.move(300, 400)
    assert page.evaluate("window.pwned") is None
    # The policy of the page is the second wall: even a script that got in would not run.
    page.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = 'window.pwned = 4';"
        " document.body.append(s); }"
    )
    assert page.evaluate("window.pwned") is None
    assert any("Content Security Policy" in e for e in hostile.errors)
    hostile.errors.clear()
    page.fill("#f-text", "")


def test_a_failed_judge_is_called_that(browser: Any, tmp_path: Path) -> None:
    write_run(tmp_path)
    with RunLog(tmp_path, tensorboard=False) as log:
        for i, why in enumerate(({"failed": True}, {})):
            log.sample(sample(6, "train", 90 + i, False, score=None, reward=None, **why))
    page = Visit(browser, write_report(tmp_path)).page
    page.select_option("#f-correct", "none")
    heads = page.locator(".sample-head").all_inner_texts()
    assert ["judge failed" in head for head in heads] == [True, False]
    assert not any("reward 0" in head for head in heads)


def test_filters(hostile: Visit) -> None:
    page = hostile.page

    def found() -> str:
        return page.locator("#count").text_content()

    # What was learned from comes first, the response with weights open.
    assert page.input_value("#f-phase") == "train"
    assert found() == "Showing 12 of 31 samples."
    assert page.locator(".sample[open]").count() == 1
    assert page.locator(".sample[open] .text[aria-label*=weight]").is_visible()
    page.select_option("#f-phase", "")
    assert found() == "Showing 12 of 39 samples."
    assert page.locator(".sample").count() == 12
    page.select_option("#f-phase", "after")
    assert found() == "Showing 4 of 4 samples."
    assert page.locator(".sample-head").filter(has_text="after training, step 20").count() == 4
    page.select_option("#f-correct", "wrong")
    assert found() == "Showing 1 of 1 sample."
    assert "chain_sum-1" in page.locator(".sample").inner_text()
    page.select_option("#f-step", "5")
    assert found() == "No sample fits these filters."
    assert page.locator(".sample").count() == 0
    page.select_option("#f-phase", "")
    assert found() == "Showing 12 of 15 samples."
    page.click("#more")
    assert page.locator(".sample").count() == 15
    assert not page.locator("#more").is_visible()
    # The id of a sample shows what was written to the same prompt before, in and after training.
    page.fill("#f-text", "chain_sum-1")
    page.locator(".sample .same").first.click()
    assert page.input_value("#f-phase") == ""
    assert "chain_sum-1" in page.input_value("#f-text")
    phases = page.locator(".sample-head").all_inner_texts()
    assert any("before" in t for t in phases)
    assert any("after" in t for t in phases)
    page.fill("#f-text", "")
    page.select_option("#f-correct", "")
    page.select_option("#f-step", "")


def test_tokens_carry_their_weights(browser: Any, tmp_path: Path) -> None:
    page = Visit(browser, write_report(write_run(tmp_path))).page
    page.fill("#f-text", "bold")
    assert page.locator(".sample").count() == 0  # the text of a response counts, not that of its pieces
    page.fill("#f-text", "3 + 2 = 5")
    box = page.locator(".sample .text[aria-label*=weight]")
    spans = box.locator("span")
    assert spans.all_text_contents() == ["3 + 2 = 5", "<b>bold</b>", "\n"]
    assert spans.first.get_attribute("title") == "w = 0.02"
    assert spans.nth(2).get_attribute("title") == "w = none"
    up, down, none = (spans.nth(i).evaluate("e => getComputedStyle(e).backgroundColor") for i in range(3))
    assert len({up, down, none}) == 3
    assert none == "rgba(0, 0, 0, 0)"
    box.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.locator(".readout").first.inner_text() == 'token 2 of 3, "<b>bold</b>": w = -0.01'


def test_theme_follows_the_system_until_the_button_says_otherwise(browser: Any, tmp_path: Path) -> None:
    phone = {"width": 360, "height": 700}
    visit = Visit(browser, write_report(write_run(tmp_path)), color_scheme="dark", viewport=phone)
    page = visit.page

    def light() -> tuple[bool, bool]:
        """Whether page and charts are light."""
        colours = page.evaluate(
            "[document.body, document.querySelector('.chart')].map(e => getComputedStyle(e).backgroundColor)"
        )
        page_, charts = (sum(map(int, c[c.index("(") + 1 : -1].split(",")[:3])) > 600 for c in colours)
        return page_, charts

    def system(scheme: str) -> None:
        page.emulate_media(color_scheme=scheme)
        # The page hears of the change when it is next drawn.
        page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done())))")

    assert light() == (False, False)
    system("light")
    assert light() == (True, True)
    page.click("#theme")
    assert light() == (False, False)
    assert page.get_attribute("#theme", "aria-pressed") == "true"
    system("dark")
    system("light")
    assert light() == (False, False)
    # A phone never scrolls sideways.
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert visit.errors == []
