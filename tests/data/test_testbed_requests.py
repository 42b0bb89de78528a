"""The testbeds ``requests:TASK``: lessons are what the rollout programs ask, and replies that help."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from policyopt.data import Task, load_task
from policyopt.data.builtin import BUILTIN
from policyopt.data.requests import Lessons
from policyopt.errors import UserError
from policyopt.items import Example, Lesson, user
from policyopt.judging.judges import make_judge
from policyopt.methods.guidance.clpo import PolicyRewriter, Restructured, fenced, stands
from policyopt.methods.guidance.critique_grpo import Refined
from policyopt.methods.judge.urpo import PlayerAndReferee, read_scores
from policyopt.methods.target.expo import SelfExplained
from policyopt.models.embedded import Architecture, build_embedded
from policyopt.models.text import encode_prompt
from policyopt.models.tokenizer import build_tokenizer
from policyopt.models.warmstart import WarmStart, warm_start
from policyopt.sources.draw import Group
from policyopt.sources.program import Prompt, Response

TOKENIZER = build_tokenizer()
SHAPE = Architecture(hidden=32, layers=1, heads=2, kv_heads=1, head_dim=16, inner=64, positions=512)


def encode(text: str) -> tuple[int, ...]:
    return tuple(TOKENIZER.encode(text, add_special_tokens=False))


def decode(ids: Sequence[int], **how: Any) -> str:
    return str(TOKENIZER.decode(list(ids), **how))


class Scribe:
    """A sampler that gives responses one after the other, whatever it is asked, and keeps the contexts."""

    def __init__(self, *written: str) -> None:
        self.written, self.asked = list(written), list[str]()

    async def generate(self, tokens: Sequence[int], *, n: int = 1, **_: Any) -> list[Response]:
        self.asked.append(decode(tokens))
        texts = [self.written.pop(0) if self.written else "" for _ in range(n)]
        rows = [[*encode(text), TOKENIZER.eos_token_id] for text in texts]
        return [Response(x, [0.0] * len(x), [0.0] * len(x), True) for x in rows]

    async def score(self, tokens: Sequence[int], written: tuple[int, ...], **_: Any) -> Response:
        return Response(list(written), [0.0] * len(written), [0.0] * len(written), True)


def contexts(program: Group, task: Task, example: Example, *written: str) -> list[str]:
    """What a program asks of a question, beside the question itself."""
    judge = make_judge(task.judge)

    async def judged(responses: Sequence[Response]) -> list[Any]:
        return [judge(example, decode(r.tokens[:-1])) for r in responses]

    prompt = Prompt(
        tuple(encode_prompt(TOKENIZER, example.prompt)), 64, (0, 0, 0), judged, encode=encode,
        decode=lambda ids: decode(ids, skip_special_tokens=True), question=example.prompt[-1]["content"],
        answer=example.answer, frame=lambda text: tuple(encode_prompt(TOKENIZER, user(text))), room=1024,
    )  # fmt: skip
    scribe = Scribe(*written)

    async def whole() -> None:
        await program.draw(prompt, scribe)

    asyncio.run(whole())
    return [text for text in scribe.asked if text != decode(prompt.tokens)]


def context(lesson: Lesson) -> str:
    return decode([*encode_prompt(TOKENIZER, lesson.prompt), *encode(lesson.given)])


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("requests:chain_sum", heldout=4)


def of_kind(task: Task, name: str, n: int = 40) -> list[tuple[Example, Lesson]]:
    """Lessons of one kind, with their questions."""
    assert isinstance(task.lessons, Lessons)
    make = getattr(task.lessons, name)
    found = [(task.train[i], make(task.train[i], random.Random(i))) for i in range(n)]
    return [(example, lesson) for example, lesson in found if lesson is not None]


def test_a_lesson_of_refinement_is_what_the_program_asks(task: Task) -> None:
    right = 0
    for example, lesson in of_kind(task, "refinement"):
        text = lesson.prompt[0]["content"].split("\n\n")[1]
        assert contexts(Refined(size=1), task, example, text) == [context(lesson)]
        assert lesson.reply == example.solution
        right += "This is right" in context(lesson)
    assert 0 < right < 20


@pytest.mark.parametrize(("kind", "verdicts"), [("simpler", "0000"), ("other", "0011")])
def test_a_lesson_of_rewriting_is_what_the_program_asks(task: Task, kind: str, verdicts: str) -> None:
    pairs = of_kind(task, kind)
    assert len(pairs) > 30
    for example, lesson in pairs:
        written = [f"#### {example.answer if x == '1' else 99}" for x in verdicts]
        program = Restructured(size=4, rewriter=PolicyRewriter())
        first, second = contexts(program, task, example, *written, lesson.reply)
        text, question = fenced(lesson.reply), example.prompt[0]["content"]
        assert first == context(lesson)
        assert second == decode(encode_prompt(TOKENIZER, user(text))), "the rewrite is of use"
        assert text != question
        if kind == "simpler" and "+" in question.partition("-")[2]:
            assert "+" not in text.partition("-")[2], "nothing is subtracted before all is added"
        assert eval(text.removesuffix("=?")) == int(example.answer)
        assert stands(example.answer, text) == stands(example.answer, question)
        assert sorted(re.findall(r"\d", text)) == sorted(re.findall(r"\d", question))


def test_a_lesson_of_explanation_is_what_the_program_asks(task: Task) -> None:
    for example, lesson in of_kind(task, "explanation", 10):
        assert contexts(SelfExplained(size=1), task, example, "", lesson.reply) == [context(lesson)]
        assert lesson.reply == example.solution


def test_a_lesson_of_scoring_is_what_the_program_asks_and_tells_the_judges_scores(task: Task) -> None:
    judge, seen = make_judge(task.judge), set()
    for example, lesson in of_kind(task, "scores"):
        texts = re.split(r"\n\(\d\) ", lesson.given.removesuffix("\nscore each: "))[1:]
        gold = [judge(example, text).score for text in texts]
        assert read_scores(lesson.reply, len(texts)) == gold
        assert lesson.prompt == example.prompt
        seen.add(tuple(gold))
        if len(set(gold)) == 2:
            assert contexts(PlayerAndReferee(size=4), task, example, *texts) == [context(lesson)]
    assert len(seen) > 6


@pytest.mark.parametrize("name", BUILTIN)
def test_lessons_of_every_task_fit_and_what_they_teach_is_right(name: str) -> None:
    task = load_task(f"requests:{name}", heldout=4)
    plain, judge, scored = load_task(name, heldout=4), make_judge(task.judge), 0
    assert (task.heldout, task.train[:3], task.judge) == (plain.heldout, plain.train[:3], plain.judge)
    by_text = {x.prompt[0]["content"]: x for x in task.train[:300]}
    for lesson in task.lessons[:300]:
        assert len(encode(lesson.reply)) < task.max_tokens
        assert len(encode(context(lesson) + lesson.reply)) < 900
        [example] = [x for text, x in by_text.items() if text in re.split(r"\n", lesson.prompt[0]["content"])][:1]
        if lesson.given:
            scored += 1
        elif not lesson.reply.startswith("```"):
            assert judge(example, lesson.reply).correct
    assert 30 < scored < 200
    assert task.lessons[7] == task.lessons[7 - len(task.lessons)]


def test_a_task_that_is_not_known_is_refused() -> None:
    for name in ("chain_summ", "", "ties", "requests:chain_sum"):
        with pytest.raises(UserError, match=r"expected one of chain_sum, .* after the colon"):
            load_task(f"requests:{name}")
    with pytest.raises(UserError, match="brings its own judge"):
        load_task("requests:chain_sum", judge="exact")


# Warm start ----------------------------------------------------------------------------------------------------------


def trained(**how: Any) -> torch.Tensor:
    """The weights of a small model after a few steps."""
    task = load_task("chain_sum", heldout=4)
    model = SHAPE.build(TOKENIZER, 0)
    warm_start(
        model, TOKENIZER, task.train, WarmStart(steps=3, tokens=200, examples=16, **how.pop("settings", {})), **how
    )
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_what_is_given_is_read_and_not_taught(task: Task) -> None:
    plain = trained()
    lessons = [Lesson(user("a"), "b"), Lesson(user("a"), "b", given="c")]
    assert torch.equal(plain, trained(settings={"lessons": 2.0})), "a task without lessons is trained as ever"
    assert torch.equal(plain, trained(lessons=lessons, settings={"lessons": 0.0}))
    first, second = (trained(lessons=[x] * 16) for x in lessons)
    assert not torch.equal(first, plain)
    assert not torch.equal(first, second)


def test_lessons_are_in_the_key_of_the_embedded_model_and_nothing_else_is_new(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLICYOPT_CACHE", str(tmp_path))
    quick = WarmStart(steps=1, tokens=200, examples=8)
    plain = replace(task, lessons=())

    def folder(task: Task, settings: WarmStart = quick) -> Path:
        return build_embedded(task, architecture=SHAPE, settings=settings)

    one = folder(task)
    assert folder(plain) == folder(plain, replace(quick, lessons=0.1)) != one
    assert folder(task, replace(quick, lessons=0.1)) != one
    said = [replace(x, reply="no") for x in task.lessons[:64]]
    assert len({one, folder(replace(task, lessons=said)), folder(replace(task, lessons=said[1:]))}) == 3


def test_a_lesson_that_is_too_long_is_named() -> None:
    with pytest.raises(UserError, match=r"lesson \d+ has 605 tokens, and the model reads 512"):
        trained(lessons=[Lesson(user("a" * 600), "b")] * 16)
