"""Retrieval over two hops, and BM25."""

from __future__ import annotations

import math

import pytest

from policyopt.data.worlds import began
from policyopt.environments.bm25 import Bm25
from policyopt.environments.worlds.retrieval import Retrieval, call, f1
from tests.environments.worlds.acting import acted, heard, said, total

TEXTS = ["the cat sat on the mat", "a dog", "the dog and the cat", "rain"]


def test_scores_are_those_of_the_formula() -> None:
    [cat, _, both, _] = Bm25(TEXTS).scores("cat")
    idf = math.log(1 + (4 - 2 + 0.5) / (2 + 0.5))
    mean = (6 + 2 + 5 + 1) / 4
    assert cat == pytest.approx(idf / (1 + 1.5 * (0.25 + 0.75 * 6 / mean)))
    assert both == pytest.approx(idf / (1 + 1.5 * (0.25 + 0.75 * 5 / mean)))


def test_the_best_come_first_and_those_without_a_word_not_at_all() -> None:
    index = Bm25(TEXTS)
    assert index.top("Dog!", 3) == ["a dog", "the dog and the cat"]
    assert index.top("dog", 1) == ["a dog"]
    assert index.top("snow ''", 3) == []
    assert Bm25([]).top("dog", 3) == []


def test_scores_are_those_of_bm25s() -> None:
    bm25s = pytest.importorskip("bm25s", reason="the package bm25s is not installed")
    other = bm25s.BM25()
    other.index([text.split() for text in TEXTS], show_progress=False)
    for query in ("cat", "the dog", "rain on the mat"):
        assert Bm25(TEXTS).scores(query) == pytest.approx(other.get_scores(query.split()).tolist(), abs=1e-5)


@pytest.mark.parametrize("seed", range(30))
def test_two_searches_lead_to_the_answer_and_one_to_another_town(seed: int) -> None:
    world = Retrieval()
    began(world, seed)
    firm = said(world, call(f"firm of {world.who}"))
    assert heard(firm) == world.needed[0]
    assert (firm.numbers["hop1"], firm.numbers["hop2"]) == (1.0, 0.0)
    name = heard(firm).split()[-1]
    town = said(world, call(f"town of {name}"))
    assert heard(town) == world.needed[1]
    assert town.numbers["hop2"] == 1.0
    last = said(world, f"#### {heard(town).split()[-1]}")
    assert (last.done, last.correct, last.reward, last.numbers["exact"]) == (True, True, 1.0, 1.0)
    began(world, seed)
    [other, wrong] = acted(world, [call(f"town of {world.who}"), f"#### {world.town[world.who]}"])
    assert heard(other) == f"town of {world.who} is {world.town[world.who]}"
    assert (wrong.reward, wrong.correct) == (0.0, False)


def test_an_answer_is_worth_its_f1() -> None:
    world = began(Retrieval(), 3)
    found = said(world, f"#### {world.answer()} or other")
    assert (found.reward, found.numbers["f1"], found.correct) == (2 / 4, 2 / 4, False)
    assert said(began(world, 3), world.answer()).reward == 0  # behind no mark
    assert f1("New York City", "new york") == pytest.approx(2 * 2 / 5)
    assert f1("", "x") == f1("a a", "b") == 0


def test_calls_that_go_wrong_are_answered() -> None:
    world = began(Retrieval(), 3)
    for text in ('{"name":"search","arguments":{"q":7}}', '{"name":"find","arguments":{}}', '{"name":"search"'):
        found = said(world, text)
        assert heard(found).startswith("error: ")
        assert (found.numbers["tool_errors"], found.done) == (1.0, False)
    assert world.state() == ""
    assert heard(said(world, call("snow"))) == "nothing"


def test_states_are_the_documents_that_were_found() -> None:
    one, two = (began(Retrieval(), 8) for _ in range(2))
    queries = [call(f"firm of {one.who}"), call(f"town of {one.who}")]
    acted(one, queries)
    acted(two, [*queries[::-1], queries[0]])
    assert one.state() == two.state() != ""


def test_each_hop_counts_once() -> None:
    world = began(Retrieval(), 8)
    found = acted(world, [call(f"firm of {world.who}")] * 3)
    assert total(found, "hop1") == 1
    assert total(found, "tool_calls") == 3
