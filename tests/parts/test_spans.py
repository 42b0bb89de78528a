"""Spans: where they lie in a text, on which tokens that is, and what a recipe refuses of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from policyopt.errors import UserError
from policyopt.integrations.served import HOSTS, refusals
from policyopt.judging.answers import locate
from policyopt.methods.group.grpo import grpo
from policyopt.models.text import Text
from policyopt.models.tokenizer import build_tokenizer
from policyopt.part import Shape, Span, part
from policyopt.parts import LastAnswer, Lines, Phrases, Regex, Tag, TokenMean
from policyopt.recipe import Recipe, recipe_from_dict
from policyopt.rows import Batch, make_batch
from policyopt.training.rows import with_spans


@part
class Counts(Shape):
    """One for each token of two spans."""

    first: Span = LastAnswer()
    second: Span = Regex("x")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.first.column, self.second.column})

    def __call__(self, batch: Batch) -> Batch:
        return batch.replace(reward=(batch.span(self.first) + batch.span(self.second.handle)).sum(-1))


def words(span: Span, text: str) -> list[str]:
    return [text[start:end] for start, end in span(text)]


def byte_level() -> PreTrainedTokenizerFast:
    """A vocabulary in which a token is a byte, so that a character may be four of them, and some are pairs."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: i for i, letter in enumerate([*letters, "ab", "Ġa", "<|end|>"])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[("a", "b"), ("Ġ", "a")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|end|>", clean_up_tokenization_spaces=False
    )  # fmt: skip


def blank_led() -> PreTrainedTokenizerFast:
    """A vocabulary whose tokens bring the blank before them, which the first of a text loses."""
    vocabulary = {piece: i for i, piece in enumerate(["<unk>", "▁one", "▁two", "three", "▁", "<|end|>"])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    backend.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|end|>", clean_up_tokenization_spaces=False
    )  # fmt: skip


def column(text: Text, tokens: Sequence[int], span: Span, mask: Sequence[float] | None = None) -> list[float]:
    own = [1.0] * len(tokens) if mask is None else list(mask)
    batch = make_batch(mask=torch.tensor([[*own, 0.0]]))  # and a place of padding
    row: Any = SimpleNamespace(tokens=tuple(tokens))
    found: list[float] = with_spans(batch, [span], [row], text.located).span(span)[0].tolist()
    assert found[-1] == 0
    return found[:-1]


# Places of a text ----------------------------------------------------------------------------------------------------


def test_tags() -> None:
    text = "<aux>a</aux> b <aux></aux> <aux>c<aux>d</aux></aux> <aux>e"
    assert words(Tag("aux"), text) == ["a", "", "d"]
    assert words(Tag("aux", marks=True), text) == ["<aux>a</aux>", "<aux></aux>", "<aux>d</aux>"]
    assert words(Tag("aux", closed=False), text)[-1] == "e"
    assert words(Tag("think"), text) == []


def test_phrases_are_whole_words_in_any_case_and_may_overlap() -> None:
    span = Phrases(("let me check", "check that", "Wait, no", "let's see"))
    assert words(span, "Let  ME\ncheck that; rewait, no. WAIT, no") == ["Let  ME\ncheck", "check that", "WAIT, no"]
    assert words(span, "let me checks, Let's see") == ["Let's see"]
    assert words(Phrases(("a b", "a b c")), "a b c a b") == ["a b c", "a b"]


def test_lines_are_counted_from_both_ends() -> None:
    text = "one\n\n two\nthree\n"
    assert words(Lines(), text) == ["one", " two", "three"]
    assert (words(Lines(-1), text), words(Lines(1, 2), text), words(Lines(stop=-1), text)) == (
        ["three"], [" two"], ["one", " two"],
    )  # fmt: skip
    assert words(Lines(7), text) == words(Lines(), " \n") == []


@pytest.mark.parametrize(
    ("text", "answer", "whole"),
    [
        ("1+1=2\n#### 2 \nso", "2", "#### 2"),
        ("<answer> 4 </answer>", "4", "<answer> 4"),
        (r"so \boxed{\frac{1}{2}}.", r"\frac{1}{2}", r"\boxed{\frac{1}{2}"),
        ("#### 1\nThe answer is 5.", "5", "answer is 5"),
        ("<think>#### 1</think>#### 2", "2", "#### 2"),
        ("#### ", "", "####"),
    ],
)
def test_the_answer_is_where_the_judges_find_it(text: str, answer: str, whole: str) -> None:
    [found], [marked] = words(LastAnswer(), text), words(LastAnswer(mark=True), text)
    assert (found, marked.strip()) == (answer, whole)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["####", " ", "\n", "7", r"\boxed{", "}", "<answer>", "</answer>", "answer is", ".", "**", "$", "é"]
        )
    )
)
def test_the_place_of_an_answer_holds_the_answer(pieces: list[str]) -> None:
    text = "".join(pieces)
    found = locate(text)
    assert words(LastAnswer(), text) == ([] if found is None else [found.text])


def test_a_pattern_that_is_none_is_refused_and_one_that_takes_for_ever_ends_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValueError, match=r"'\(' is no regular expression"):
        Regex("(")
    monkeypatch.setattr("policyopt.parts.span.kinds.SECONDS", 0.05)
    with pytest.raises(
        UserError, match=r"took more than 0.05 s on a text of 41 characters: write it without repetitions"
    ):
        Regex("(a|aa)+$")("a" * 40 + "!")
    assert words(Regex(r"=(?P<span>\d+)"), "1+1=2, 3=") == ["2"]
    with pytest.raises(ValueError, match="has no word"):
        Phrases(("a", " "))


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (Tag("aux"), "<aux>" * 50_000),
        (Phrases(("a a a b",)), "a " * 50_000),
        (Lines(), "\n" * 200_000),
        (LastAnswer(), "<answer>" * 30_000),
    ],
    ids=lambda x: type(x).__name__,
)
def test_long_texts_take_no_longer_than_they_are(span: Span, text: str) -> None:
    start = time.process_time()
    span(text)
    assert time.process_time() - start < 3


# Tokens of a text ----------------------------------------------------------------------------------------------------


def test_tokens_that_share_a_character_with_a_span_are_in_it() -> None:
    text = Text(byte_level(), eos=(258,))
    tokens = text.encode("ab é a😀b")
    assert text.pieces(tokens) == ["ab", " ", *["\ufffd"] * 2, " a", *["\ufffd"] * 4, "b"]
    assert column(text, tokens, Regex("b ")) == [1, 1] + [0] * 8
    assert column(text, tokens, Regex("é")) == [0, 0, 1, 1] + [0] * 6
    assert column(text, tokens, Regex("a😀")) == [0] * 4 + [1] * 5 + [0]
    assert column(text, [*tokens, 102, 65], Regex("b")) == [1] + [0] * 8 + [1, 1, 1], (
        "bytes that are no character go with the next one"
    )


def test_a_vocabulary_that_loses_the_first_blank() -> None:
    text = Text(blank_led(), eos=(5,))
    assert text.decode([1, 2, 3, 2]) == "one twothree two"
    assert column(text, [1, 2, 3, 2, 5], Regex("(?<=two)three")) == [0, 0, 1, 0, 0]
    assert column(text, [1, 2, 3, 2, 5], Phrases(("two",))) == [0, 0, 0, 1, 0]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 257), max_size=30))
def test_bytes_that_are_no_text_have_places_too(tokens: list[int]) -> None:
    said, places = Text(byte_level(), eos=(258,)).located(tokens)
    assert [places[0][0], places[-1][1]] == [0, len(said)] if tokens else not places
    assert all(a <= b for a, b in places)
    assert all(a[1] in (b[0], b[1]) for a, b in pairwise(places)), (
        "one begins where the one before it ends, or is the same"
    )


def test_only_the_policys_own_tokens_count() -> None:
    text = Text(build_tokenizer(), eos=(2,))
    tokens = [*text.encode("<answer>12"), 2]
    assert column(text, tokens, Regex("1.*"))[-3:] == [1, 1, 0], "the end of a turn is no text"
    assert column(text, text.encode("<answer>12</answer>"), LastAnswer(), [0.0] * 9 + [1.0] * 10)[8:11] == [0, 1, 0]


def test_what_the_template_has_opened_is_read_as_judges_read_it() -> None:
    tokenizer = build_tokenizer()
    tokenizer.chat_template += "{% if add_generation_prompt %}<think>\n{% endif %}"
    text = Text(tokenizer, eos=(2,))
    tokens = text.encode("3</think>#### 4")
    assert text.located(tokens)[0] == text.responses([tokens])[0]
    assert column(text, tokens, Tag("think"))[:2] == [1, 0]


# Recipes -------------------------------------------------------------------------------------------------------------


def test_a_recipe_finds_the_spans_in_its_parts() -> None:
    recipe = grpo().replace(shape=(Counts(),))
    assert recipe.spans == (LastAnswer(), Regex("x"))
    assert {"span[LastAnswer]", "span[Regex]"} <= recipe.needs
    named = grpo().replace(shape=(Counts(Regex("a", label="a"), Regex("a", label="b")),))
    assert {"span[a]", "span[b]"} <= named.needs and len(named.spans) == 2
    assert recipe_from_dict(named.to_dict()).needs == named.needs, "labels are written down"
    assert named.set("shape.Counts.first.pattern", "c").spans[0] == Regex("c")


def test_unlike_spans_of_one_name_and_spans_that_are_not_there_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"two spans are called Regex: .*tell them apart by labels, as in Regex\(..., label="
    ):
        grpo().replace(shape=(Counts(Regex("a"), Regex("b")),))
    assert grpo().replace(shape=(Counts(Regex("a"), Regex("a")),)).spans == (Regex("a"),)

    @part
    class Careless(Shape):
        """Needs a span that it has not."""

        @property
        def needs(self) -> frozenset[str]:
            return frozenset({"span[Plan]"})

    with pytest.raises(
        ValueError, match=r"shape.Careless needs 'span\[Plan\]', and the recipe has no span of this name"
    ):
        grpo().replace(shape=(Careless(),))


def test_other_peoples_loops_refuse_what_reads_spans() -> None:
    recipe: Recipe = grpo(kl_coef=0.0).replace(shape=(Counts(),), aggregate=TokenMean())
    for host in HOSTS:
        assert any(
            "shape.Counts" in sentence and "span[LastAnswer]" in sentence for _, sentence in refusals(recipe, host)
        )


def test_a_batch_gives_a_span_without_its_padding() -> None:
    mask = torch.tensor([[1.0, 1.0, 0.0]])
    batch = make_batch(mask=mask).replace(**{"span[Regex]": torch.tensor([[1.0, 0.0, torch.nan]])})
    found: Tensor = batch.span(Regex("q"))
    assert found.tolist() == batch.span("Regex").tolist() == [[1, 0, 0]]
    with pytest.raises(KeyError, match=r"span\[Tag\]"):
        batch.span(Tag())
