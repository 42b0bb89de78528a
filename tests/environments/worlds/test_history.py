"""The long history: facts, and the one that is asked for."""

from __future__ import annotations

from policyopt.data import load_task
from policyopt.data.worlds import began
from policyopt.environments.worlds.history import History
from policyopt.models.tokenizer import build_tokenizer
from policyopt.models.warmstart import _join
from tests.environments.worlds.acting import acted, heard, said, shown


def test_all_facts_are_told_and_one_of_them_is_asked_for() -> None:
    world = History(facts=4)
    began(world, 3)
    told = [world.question().split(": ")[1]]
    observations = acted(world, ["ok"] * 4)
    told += [heard(o) for o in observations]
    facts = dict(line.split()[0].split("=") for line in told[:4])
    assert len(facts) == 4
    name = told[4].removesuffix("?")
    last = said(world, facts[name])
    assert (last.done, last.correct, last.reward) == (True, True, 1.0)
    assert name != told[3][0]  # the last fact would need no memory


def test_a_wrong_answer_is_worth_nothing_and_notes_are_heard_by_nobody() -> None:
    world, other = (began(History(), 5) for _ in range(2))
    one = acted(world, ["k"] * 6)
    two = acted(other, ["a longer note"] * 6)
    assert [heard(o) for o in one] == [heard(o) for o in two]
    assert one[0].numbers["noted"] == 1 and two[0].numbers["noted"] == 13
    last = said(world, f"{(int(world.answer()) + 1) % 10}")
    assert (last.done, last.correct, last.reward) == (True, False, 0.0)


def test_six_facts_fit_into_the_budget_and_twenty_do_not() -> None:
    for facts, fits in ((6, True), (20, False)):
        task = load_task(f"history:{facts}", heldout=2)
        ids, taught = _join("", task.lessons[0], build_tokenizer(), 1024)
        assert (len(ids) - taught.index(True) <= task.max_tokens) is fits


def test_filler_makes_it_longer_and_changes_nothing_else() -> None:
    short, long = (began(History(filler=n), 3) for n in (0, 30))
    assert len(long.question()) > len(short.question()) + 20
    assert short.values.keys() == long.values.keys()


def test_states_count_the_facts() -> None:
    world = began(History(), 2)
    states = [world.state(), *(o.state for o in shown(world, 2, 0.0)[:-1])]
    assert len(set(states)) == 7
