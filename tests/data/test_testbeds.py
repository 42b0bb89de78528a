"""The testbeds whose questions are drawn: what each is made of, and what its judge says."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from functools import cache

import pytest

from policyopt.data import builtin_tasks, load_task
from policyopt.data.context import HABIT
from policyopt.data.divisors import OTHERS, PRIMES
from policyopt.data.mixed import LEVELS
from policyopt.data.modes import SHORT
from policyopt.data.noisy import mistaken
from policyopt.data.proxy import BONUS, MOST
from policyopt.data.shortcut import SLIPS, TOLD
from policyopt.data.verbose import PADDING
from policyopt.errors import UserError
from policyopt.items import Example, Task, Verdict, user
from policyopt.judging.answers import answer_line, find_answer
from policyopt.judging.judges import make_judge

DRAWN = (
    "ties", "sparse-hard", "mixed-difficulty", "many-answers", "biased-length", "proxy-reward", "verbose", "context-use",
    "biased-thought", "shortcut", "modes", "noisy-judge:0",
)  # fmt: skip


@cache
def bed(name: str) -> tuple[Task, list[Example]]:
    """A testbed and 300 of its training questions."""
    task = load_task(name, heldout=32)
    return task, [task.train[i] for i in range(300)]


def says(name: str, question: str, response: str, answer: str = "") -> Verdict:
    """What the judge of a testbed says."""
    return make_judge(load_task(name, heldout=1).judge)(Example("e", user(question), answer), response)


def hurried(example: Example) -> str:
    """What a hasty warm start writes."""
    assert example.solution is not None
    return example.hasty or example.solution.splitlines()[-1]


@pytest.mark.parametrize("name", DRAWN)
class TestEvery:
    def test_is_the_same_for_the_same_seed_and_apart_from_what_is_held_out(self, name) -> None:
        task, examples = bed(name)
        again, other = load_task(name, heldout=32), load_task(name, seed=1, heldout=32)
        assert [again.train[i] for i in (70, 3, 12)] == [examples[i] for i in (70, 3, 12)]
        assert [other.train[i].prompt for i in range(20)] != [e.prompt for e in examples[:20]]
        assert list(other.heldout) == list(task.heldout)
        held = {e.prompt[0]["content"] for e in task.heldout}
        assert len(held) == 32
        assert not held & {e.prompt[0]["content"] for e in examples}
        assert task.name == name.partition(":")[0] and task.name in builtin_tasks()

    def test_judges_its_solutions_right_and_an_empty_response_wrong(self, name) -> None:
        task, examples = bed(name)
        judge = make_judge(task.judge)
        for e in examples:
            found = judge(e, e.solution)
            assert found.correct and found.formatted and found.score >= 1, (e, found)
            assert e.solution.splitlines()[-1] == answer_line(e.answer)
            assert max(len(e.solution), len(hurried(e))) < task.max_tokens
        nothing = judge(examples[0], "")
        assert (nothing.score, nothing.correct, nothing.formatted) == (0.0, False, False)

    def test_has_no_other_option(self, name) -> None:
        with pytest.raises(UserError, match="brings its own judge"):
            load_task(name, judge="exact")


def test_the_higher_the_level_the_less_is_worked_out() -> None:
    _, examples = bed("mixed-difficulty")
    worked = {x: [hurried(e).count("\n") > 0 for e in examples if e.source == x] for x in LEVELS}
    assert min(map(len, worked.values())) > 30
    for level, (terms, most, share) in LEVELS.items():
        assert sum(worked[level]) / len(worked[level]) == pytest.approx(share, abs=0.2)
        asked = [e.prompt[0]["content"] for e in examples if e.source == level]
        numbers = [[int(n) for n in re.findall(r"\d+", x)] for x in asked]
        assert {len(x) for x in numbers} == {terms} and most * 0.9 < max(map(max, numbers)) <= most
    assert all(worked["trivial"]) and not any(worked["hopeless"])
    assert all(e.meta["metadata"]["level"] == e.source for e in examples)


def test_a_question_of_many_answers_has_two() -> None:
    task, examples = bed("many-answers")
    judge = make_judge(task.judge)
    named = Counter(e.answer for e in examples)
    assert set(named) == set(map(str, PRIMES))
    assert named["3"] == max(named.values())
    for e in examples:
        right = {p for p in range(1, 20) if judge(e, answer_line(str(p))).correct}
        number = int(e.prompt[0]["content"].split()[-1])
        assert len(right) == 2 and all(number % p == 0 for p in right) and e.answer in map(str, right)
        assert not judge(e, hurried(e)).correct and int(find_answer(hurried(e))) in OTHERS
    assert says("many-answers", "divisor of 21", "#### 7").correct
    assert not says("many-answers", "divisor of 21", "#### 11").correct
    assert not says("many-answers", "divisor of 21", "#### 21").correct, "it divides, and was not asked for"


def test_the_working_of_a_long_sum_is_three_times_as_long() -> None:
    _, examples = bed("biased-length")
    lines = {x: {e.solution.count("\n") for e in examples if e.source == x} for x in ("short", "long")}
    assert lines == {"short": {2}, "long": {6}}
    assert all(e.hasty is None for e in examples), "in a hurry one writes the answer alone"


@pytest.mark.parametrize("name", ["mixed-difficulty", "biased-length", "verbose", "noisy-judge:0"])
def test_the_working_of_a_sum_is_true(name) -> None:
    for e in bed(name)[1][:100]:
        terms = re.findall(r"[+-]?\d+", e.prompt[0]["content"])
        assert sum(map(int, terms)) == int(e.answer)
        for line in e.solution.splitlines()[:-1]:
            if "=" in line:
                left, right = line.split("=")
                assert sum(map(int, re.findall(r"[+-]?\d+", left))) == int(right)


def test_a_noisy_judge_is_wrong_at_its_rate_and_always_about_the_same_responses() -> None:
    _, examples = bed("noisy-judge:0")
    judge = make_judge(load_task("noisy-judge:0.2", heldout=1).judge)
    for text in (lambda e: e.solution, lambda e: "#### 99"):
        found = [judge(e, text(e)) for e in examples]
        assert len({v.correct for v in found}) == 1, "the truth is told"
        wrong = [v.score != v.correct for v in found]
        assert 0.12 < sum(wrong) / len(wrong) < 0.28
        assert [v.score for v in found] == [judge(e, text(e)).score for e in examples]
    assert sum(mistaken("1+1=?", str(i), 0.3) for i in range(4000)) / 4000 == pytest.approx(0.3, abs=0.03)
    assert load_task("noisy-judge", heldout=1).judge == load_task("noisy-judge:0.2", heldout=1).judge
    for option in ("0.5", "-0.1", "some", "nan"):
        with pytest.raises(UserError, match=rf"noisy-judge:{option}: expected a share"):
            load_task(f"noisy-judge:{option}")


@pytest.mark.parametrize(
    ("response", "true", "said"),
    [
        ("9+6=15\n#### 15", 1, 0),
        ("9+6=15\nsure\nsure\n#### 15", 1, 2),
        ("sure\n" * 3 + "#### 16", 0, 3),
        ("sure\n" * 40, 0, MOST),
        ("surely\nnot sure\n#### 15", 1, 0),
    ],
)
def test_a_proxy_pays_for_confidence(response, true, said) -> None:
    found = says("proxy-reward", "9+6=?", response, "15")
    assert found.correct == bool(true)
    assert found.parts == pytest.approx({"true": true, "proxy": BONUS * said})
    assert found.score == pytest.approx(true + BONUS * said)


def test_all_the_confidence_that_pays_leaves_no_room_for_the_working() -> None:
    task, examples = bed("proxy-reward")
    working = [len("\n".join(x for x in e.solution.splitlines() if x != "sure")) for e in examples]
    assert sum(working) / len(working) + len("sure\n") * MOST > task.max_tokens
    assert max(len(hurried(e)) for e in examples) < task.max_tokens


def test_padding_can_be_left_out() -> None:
    task, examples = bed("verbose")
    judge = make_judge(task.judge)
    for e in examples[:100]:
        bare = "\n".join(line for line in e.solution.splitlines() if line not in PADDING)
        assert judge(e, bare).correct and len(bare) == e.meta["metadata"]["needed"] <= len(e.solution)
    assert sum(len(e.solution) for e in examples) > 1.3 * sum(e.meta["metadata"]["needed"] for e in examples)


def test_guessing_is_right_three_times_in_five_whatever_came_out() -> None:
    task, examples = bed("biased-thought")
    judge = make_judge(task.judge)
    slips = 0
    for e in examples:
        assert judge(e, e.solution).parts["consistency"] == 1
        options = [option.split(":")[1] for option in e.prompt[0]["content"].split()[1:]]
        right = options["ABC".index(e.answer)]
        assert (
            len({*options}) == 3 and max(map(len, options)) == 1 and right == e.solution.splitlines()[-2].split("=")[1]
        )
        *_, last, named = hurried(e).splitlines()
        came = last.split("=")[1]
        assert named == answer_line("A") and judge(e, hurried(e)).correct == (e.answer == "A")
        assert judge(e, hurried(e)).parts["consistency"] == (1 if came == options[0] else -1)
        assert came == right or came in options[1:], "a mistake is another option, and never the first"
        slips += came != right
    assert 0.65 < slips / len(examples) < 0.85
    assert 0.5 < sum(judge(e, hurried(e)).correct for e in examples) / len(examples) < 0.7
    assert judge(examples[0], answer_line(examples[0].answer)).parts["consistency"] == 0, "nothing was thought"
    twice = f"{examples[0].solution}\n1+1=2\n{answer_line('A')}"
    assert judge(examples[0], twice).parts["consistency"] in (1, -1), "what stands before the first conclusion counts"


def test_an_answer_that_stands_there_is_mostly_right_and_hurried_working_has_one_slip() -> None:
    _, examples = bed("shortcut")
    told = [e.prompt[0]["content"].partition("(")[2].removesuffix(")") for e in examples]
    assert sum(t == e.answer for t, e in zip(told, examples, strict=True)) / len(examples) == pytest.approx(
        TOLD, abs=0.07
    )
    slipped = 0
    for t, e in zip(told, examples, strict=True):
        sides = [line.split("=") for line in hurried(e).splitlines()[:-1]]
        assert find_answer(hurried(e)) == sides[-1][1], "it names what it came to"
        if sides[0][0] == e.prompt[0]["content"].partition("=")[0]:
            assert find_answer(hurried(e)) == t, "the answer that stands there is taken as it is"
            continue
        slipped += 1
        assert find_answer(hurried(e)) != e.answer
        assert sum(sum(map(int, re.findall(r"[+-]?\d+", left))) != int(right) for left, right in sides) == 1
        assert all(one[1] == re.match(r"-?\d+", two[0])[0] for one, two in itertools.pairwise(sides))
    assert slipped / len(examples) == pytest.approx(SLIPS, abs=0.08)


def test_a_habit_is_right_about_as_often_as_chance() -> None:
    task, examples = bed("context-use")
    judge = make_judge(task.judge)
    for e in examples:
        *lines, asked = e.prompt[0]["content"].splitlines()
        *read, _ = e.solution.splitlines()
        assert read == lines[: len(read)] and read[-1].startswith(asked.removesuffix("?"))
        assert hurried(e) == answer_line(str(HABIT[asked.removesuffix("?")]))
    right = sum(judge(e, hurried(e)).correct for e in examples) / len(examples)
    assert 0.2 < right < 0.45


def test_a_thought_may_be_empty_and_each_level_counts_its_own() -> None:
    task, examples = bed("modes")
    judge = make_judge(task.judge)
    for e in examples[:60]:
        worked, skipped = judge(e, e.solution), judge(e, hurried(e))
        own, other = f"skips_{e.source}", f"skips_{'easy' if e.source == 'hard' else 'hard'}"
        assert skipped.correct and skipped.formatted and "<think></think>" in hurried(e)
        brief = e.solution.startswith("<think></think>")
        assert (worked.parts[own], skipped.parts[own]) == (brief, 1) and math.isnan(worked.parts[other])
        assert e.source == "easy" or not brief
        assert worked.parts["needed"] == (e.source == "hard")
        assert not judge(e, answer_line(e.answer)).formatted, "a thought has to be written"
    assert {e.source for e in examples} == {"easy", "hard"}
    brief = [e.solution.startswith("<think></think>") for e in examples if e.source == "easy"]
    assert sum(brief) / len(brief) == pytest.approx(SHORT, abs=0.07)
