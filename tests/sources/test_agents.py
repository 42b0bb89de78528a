"""Agents that talk to the policy at an address: which rows come of what they ask."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from policyopt.environments.agent import Agent
from policyopt.items import Example, user
from policyopt.models.text import Text
from policyopt.models.tokenizer import build_tokenizer
from policyopt.sources.agents import AgentPlayer
from policyopt.sources.desk import last_rows
from policyopt.sources.episodes import Episodes
from policyopt.sources.program import Question, Response

TOKENIZER = build_tokenizer(4096)
TEXT = Text(TOKENIZER, (TOKENIZER.eos_token_id,))
EXAMPLE = Example("q-1", user("2+2=?"), "4", meta={"seed": 7, "hint": "add"})
CALL = '{"name": "calc", "arguments": {"e": "2+2"}}'
TOOLS = [{"type": "function", "function": {"name": "calc", "parameters": {"type": "object", "properties": {}}}}]


class Scripted:
    """A sampler that says what a function of the text that it reads says, in odd tokens: its log-probabilities tell them apart."""

    def __init__(self, say: Callable[[str], str], delay: float = 0.0) -> None:
        self.say, self.delay = say, delay
        self.prompts: list[tuple[int, ...]] = []
        self.keys: list[tuple[int, ...]] = []
        self.heats: list[float] = []
        self.together = self.most = 0

    async def generate(
        self, tokens: Sequence[int], *, max_tokens: int, temperature: float, key: tuple[int, ...], **_: Any
    ) -> list[Response]:
        self.prompts.append(tuple(tokens))
        self.keys.append(key)
        self.heats.append(temperature)
        self.together += 1
        self.most = max(self.most, self.together)
        await asyncio.sleep(self.delay)
        self.together -= 1
        said = [*TEXT.encode(self.say(TOKENIZER.decode(list(tokens)))), TOKENIZER.eos_token_id][:max_tokens]
        n, ended = len(said), said[-1] == TOKENIZER.eos_token_id
        stop = "eos" if ended else "length"
        return [Response(said, [-0.5] * n, [0.1] * n, stop, versions=[0] * n, temperature=temperature or 1.0)]  # type: ignore[arg-type]


def post(base_url: str, messages: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    body = json.dumps({"model": "any", "messages": messages, **options}).encode()
    request = urllib.request.Request(f"{base_url}/chat/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def say(base_url: str, messages: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    """The message that comes back, as a client puts it behind the others."""
    message: dict[str, Any] = post(base_url, messages, **options)["choices"][0]["message"]
    return message


def rows_of(
    run: Callable[..., Any], say: Callable[[str], str] | Scripted, n: int = 1, budget: int = 400, temperature: float = 1.0,
    context: int = 4096, judged: bool = False, limits: Episodes | None = None, turns: int = 32, heat: Any = "run",
    seconds: float = 20,
) -> list[Response]:  # fmt: skip
    """The rows of some episodes of an agent."""
    player = AgentPlayer(
        lambda: Agent(run, "agent:test.py:run", turns, heat),
        TEXT,
        limits or Episodes(seconds=seconds),
        "json",
        judged,
        context,
    )
    sampler = say if isinstance(say, Scripted) else Scripted(say)
    question = Question(TEXT.prompt(EXAMPLE.prompt), budget, (0, 1, 2))
    return asyncio.run(player.play(EXAMPLE, question, sampler, n=n, temperature=temperature, key=(5,)))  # type: ignore[arg-type]


def own(row: Response) -> str:
    """What the policy learns from."""
    return TOKENIZER.decode([t for t, mine in zip(row.tokens, row.own or [True] * len(row.tokens)) if mine])


def two_turns(base_url: str, row: dict[str, Any]) -> float:
    messages = [*row["prompt"]]
    messages.append(say(base_url, messages))
    messages.append({"role": "user", "content": "sure?"})
    return float(say(base_url, messages)["content"] == row["answer"])


def test_a_conversation_that_goes_on_is_one_row_and_only_the_policys_own_tokens_are_trained_on() -> None:
    [row] = rows_of(two_turns, lambda read: "4" if "sure?" in read else " maybe 5 ")
    assert not row.context, "the agent asked what the task asks"
    assert TOKENIZER.decode(row.tokens) == " maybe 5 <|end|><|user|>sure?<|end|><|assistant|>4<|end|>"
    assert own(row) == " maybe 5 <|end|>4<|end|>"
    assert [x for x, mine in zip(row.logp, row.own) if not mine] == [0.0] * row.own.count(False)
    assert row.columns["turn_end"] == [9, len(row.tokens) - 1]
    assert row.columns["turn_reward"] == [0.0, 1.0]
    assert row.verdict is not None and row.verdict.score == 1.0 and row.verdict.correct
    assert row.stop_reason == "eos"


def test_what_was_drawn_is_never_rendered_again() -> None:
    """The second request is answered behind the very tokens that were drawn, though the words would be encoded otherwise."""

    class Odd(Scripted):
        async def generate(self, tokens: Sequence[int], **options: Any) -> list[Response]:
            [drawn] = await super().generate(tokens, **options)
            drawn.tokens[-1:-1] = [TOKENIZER.unk_token_id]  # which no text is encoded to, and no text shows
            drawn.logp.append(-0.5)
            drawn.entropy.append(0.1)
            drawn.versions.append(0)
            return [drawn]

    sampler = Odd(lambda read: "4")
    [row] = rows_of(two_turns, sampler)
    assert sampler.prompts[1][: len(sampler.prompts[0])] == sampler.prompts[0]
    assert sampler.prompts[1] == (*sampler.prompts[0], *row.tokens[: len(sampler.prompts[1]) - len(sampler.prompts[0])])
    assert TOKENIZER.unk_token_id in sampler.prompts[1]


def test_an_agent_that_strips_what_it_heard_goes_on_with_the_same_row() -> None:
    def run(base_url: str, row: dict[str, Any]) -> float:
        said = say(base_url, row["prompt"])["content"]
        told = [*row["prompt"], {"role": "assistant", "content": said.strip()}, {"role": "user", "content": "sure?"}]
        say(base_url, told)
        return 0.0

    assert len(rows_of(run, lambda read: " 5 ")) == 1


def test_an_agent_that_rewrites_its_history_has_several_rows_of_one_episode() -> None:
    def run(base_url: str, row: dict[str, Any]) -> dict[str, float]:
        say(base_url, row["prompt"])
        summed = [{"role": "system", "content": "so far: 5"}, *row["prompt"]]
        summed.append(say(base_url, summed))
        say(base_url, [*summed, {"role": "user", "content": "sure?"}])
        return {"reward": 0.25, "steps": 3}

    first, second, third, fourth = rows_of(run, lambda read: "5", n=2)
    assert [r.columns["episode"] for r in (first, second, third, fourth)] == [0.0, 0.0, 1.0, 1.0]
    assert own(first) == "5<|end|>" and own(second) == "5<|end|>5<|end|>"
    assert TOKENIZER.decode(list(second.context)).startswith("<|system|>so far: 5<|end|><|user|>2+2=?")
    assert {r.verdict.score for r in (first, second)} == {0.25} and first.verdict.parts == {"steps": 3.0}  # type: ignore[union-attr]
    assert last_rows([first, second, third, fourth]) == [second, fourth]


def test_two_continuations_of_one_beginning_are_two_rows_and_nothing_is_trained_on_twice() -> None:
    def run(base_url: str, row: dict[str, Any]) -> float:
        start = [*row["prompt"], say(base_url, row["prompt"])]
        for question in ("a?", "b?"):
            say(base_url, [*start, {"role": "user", "content": question}])
        return 1.0

    first, second = rows_of(run, lambda read: read[-18:-15] + "!")
    assert [own(first).count("<|end|>"), own(second).count("<|end|>")] == [2, 1]
    prompt = TEXT.prompt(EXAMPLE.prompt)
    begun = (*prompt, *first.tokens[: int(first.columns["turn_end"][0]) + 1])  # type: ignore[index]
    assert second.context[: len(begun)] == begun, "it reads what was drawn, as it was drawn"
    assert TOKENIZER.decode(list(second.context[len(begun) :])) == "<|user|>b?<|end|><|assistant|>"


def test_calls_of_tools_come_as_calls_and_their_results_go_on_with_the_row() -> None:
    def run(base_url: str, row: dict[str, Any]) -> float:
        messages = [*row["prompt"]]
        answer = post(base_url, messages, tools=TOOLS)["choices"][0]
        assert answer["finish_reason"] == "tool_calls" and answer["message"]["content"] is None
        [call] = answer["message"]["tool_calls"]
        assert call["type"] == "function" and call["function"] == {"name": "calc", "arguments": '{"e": "2+2"}'}
        result = {"role": "tool", "tool_call_id": call["id"], "content": "4"}
        final = say(base_url, [*messages, answer["message"], result], tools=TOOLS)
        assert "tool_calls" not in final
        return float(final["content"] == "4")

    [row] = rows_of(run, lambda read: "4" if read.endswith("<|user|>4<|end|><|assistant|>") else CALL)
    assert row.verdict is not None and row.verdict.score == 1.0
    assert own(row) == f"{CALL}<|end|>4<|end|>"
    assert '"name":"calc"' in TOKENIZER.decode(list(row.context)), "the model is told of the tools"


def test_other_tools_are_another_prompt() -> None:
    def run(base_url: str, row: dict[str, Any]) -> float:
        messages = [*row["prompt"], say(base_url, row["prompt"])]
        say(base_url, [*messages, {"role": "user", "content": "?"}], tools=TOOLS)
        return 0.0

    assert len(rows_of(run, lambda read: "5")) == 2


def test_a_stop_text_ends_an_answer_and_what_was_drawn_behind_it_is_cut_off() -> None:
    def run(base_url: str, row: dict[str, Any]) -> float:
        answer = post(base_url, row["prompt"], stop=["END"])["choices"][0]
        assert answer["message"]["content"] == "four " and answer["finish_reason"] == "stop"
        assert say(base_url, [*row["prompt"], answer["message"], {"role": "user", "content": "?"}], stop="END")
        return 1.0

    [row] = rows_of(run, lambda read: "four END and more")
    assert TOKENIZER.decode(row.tokens).startswith("four END<|end|><|user|>?")
    assert own(row) == "four ENDfour END"
    assert len(row.logp) == len(row.tokens) == len(row.entropy) == len(row.versions)


def test_max_tokens_and_the_budget_of_the_run_bound_an_answer() -> None:
    finishes: list[tuple[str, int]] = []

    def run(base_url: str, row: dict[str, Any]) -> float:
        for most in (3, 1000):
            answer = post(base_url, row["prompt"], max_tokens=most)
            finishes.append((answer["choices"][0]["finish_reason"], answer["usage"]["completion_tokens"]))
        return 0.0

    rows = rows_of(run, lambda read: "x" * 60, budget=20)
    assert finishes == [("length", 3), ("length", 20)]
    assert [(len(r.tokens), r.stop_reason) for r in rows] == [(3, "length"), (20, "length")]


def test_an_agent_that_gives_up_where_there_is_no_room_has_no_reward_and_is_not_called_broken() -> None:
    codes: list[str] = []

    def run(base_url: str, row: dict[str, Any]) -> float:
        messages = [*row["prompt"]]
        while True:
            try:
                messages.append(say(base_url, messages))
            except urllib.error.HTTPError as error:
                codes.append(f"{error.code} {error.headers['x-should-retry']} {json.load(error)['error']['code']}")
                raise
            messages.append({"role": "user", "content": "more"})

    [row] = rows_of(run, lambda read: "y" * 10, budget=60)
    assert codes == ["400 false context_length_exceeded"]
    assert row.verdict is not None and not row.verdict.rewarded and not row.verdict.failed
    assert "gave up" in row.verdict.reason and "--max-tokens" in row.verdict.reason
    [row] = rows_of(run, lambda read: "y", budget=500, turns=3)
    assert codes[-1] == "400 false too_many_requests" and own(row).count("y") == 3
    [row] = rows_of(run, lambda read: "y", context=40)
    assert codes[-1] == "400 false context_length_exceeded"


def test_huge_messages_are_refused_before_they_are_encoded() -> None:
    def run(base_url: str, row: dict[str, Any]) -> float:
        with pytest.raises(urllib.error.HTTPError) as raised:
            post(base_url, [{"role": "user", "content": "x" * 100_000}])
        assert raised.value.code == 400
        return 1.0

    [row] = rows_of(run, lambda read: "5", context=4096)
    assert not row.tokens and row.verdict is not None and "asked the model nothing" in row.verdict.reason


def test_an_agent_that_raises_fails_and_says_why() -> None:
    def run(base_url: str, row: dict[str, Any]) -> float:
        say(base_url, row["prompt"])
        raise KeyError("no such tool")

    [row] = rows_of(run, lambda read: "5")
    assert row.verdict is not None and row.verdict.failed and "KeyError: 'no such tool'" in row.verdict.reason


@pytest.mark.parametrize("kind", ["waits", "awaits"])
def test_an_agent_that_takes_too_long_is_given_up_and_its_later_requests_are_refused(kind: str) -> None:
    late: list[int] = []

    def asked_late(base_url: str) -> None:
        try:
            say(base_url, [{"role": "user", "content": "?"}])
        except urllib.error.HTTPError as error:
            late.append(error.code)

    def waits(base_url: str) -> float:
        time.sleep(0.6)
        asked_late(base_url)
        return 1.0

    async def awaits(base_url: str) -> float:
        await asyncio.sleep(30)
        return 1.0

    start = time.monotonic()
    [row] = rows_of(waits if kind == "waits" else awaits, lambda read: "5", limits=Episodes(seconds=0.3))
    assert row.verdict is not None and row.verdict.failed and "longer than 0.3 s" in row.verdict.reason
    assert time.monotonic() - start < 5
    if kind == "waits":
        time.sleep(0.8)
        assert late == [401]


def test_an_error_of_the_sampler_ends_the_run_as_what_it_is() -> None:
    def broken(read: str) -> str:
        raise MemoryError("the device is full")

    with pytest.raises(MemoryError, match="the device is full"):
        rows_of(two_turns, broken)


def test_coroutine_functions_of_all_episodes_run_together_and_their_requests_are_drawn_together() -> None:
    async def run(base_url: str, hint: str, seed: int, model: str, api_key: str, other: int = 3) -> float:
        assert (hint, seed, model, other) == ("add", 7, "policy", 3)
        messages = [{"role": "user", "content": "hello"}]
        await asyncio.to_thread(say, base_url, messages)
        return 1.0

    sampler = Scripted(lambda read: "5", delay=0.5)
    rows = rows_of(run, sampler, n=6)
    assert len(rows) == 6 and sampler.most == 6
    assert len(set(sampler.keys)) == 6, "each episode draws for itself"


def test_the_same_requests_draw_with_the_same_keys_whatever_their_order() -> None:
    def run_of(order: Sequence[str]) -> Callable[..., float]:
        def run(base_url: str) -> float:
            for word in order:
                say(base_url, [{"role": "user", "content": word}])
            return 0.0

        return run

    first, second = Scripted(lambda read: "5"), Scripted(lambda read: "5")
    rows_of(run_of(("a", "b", "a")), first)
    rows_of(run_of(("b", "a", "a")), second)
    assert sorted(first.keys) == sorted(second.keys) and len(set(first.keys)) == 3


def test_the_temperature_is_the_runs_unless_the_agent_is_to_say() -> None:
    def run(base_url: str) -> float:
        messages = [{"role": "user", "content": "a"}]
        messages.append(say(base_url, messages, temperature=0.5))
        say(base_url, [*messages, {"role": "user", "content": "b"}], temperature=0)
        return 0.0

    sampler = Scripted(lambda read: "5")
    assert [r.temperature for r in rows_of(run, sampler, temperature=0.8)] == [0.8]
    assert sampler.heats == [0.8, 0.8]
    sampler = Scripted(lambda read: "5")
    first, second = rows_of(run, sampler, temperature=0.8, heat="agent")
    assert sampler.heats == [0.5, 0.0] and (first.temperature, second.temperature) == (0.5, 1.0)
    assert (
        TOKENIZER.decode(list(second.context)).endswith("5<|end|><|user|>b<|end|><|assistant|>")
        and own(second) == "5<|end|>"
    )
    sampler = Scripted(lambda read: "5")
    assert len(rows_of(run, sampler, temperature=0.0, heat="agent")) == 1
    assert sampler.heats == [0.0, 0.0], "a run that measures greedily stays greedy"


def test_what_an_agent_returns() -> None:
    def worth(said: Any, judged: bool = False, twice: bool = False) -> Any:
        def run(base_url: str, row: dict[str, Any]) -> Any:
            for _ in range(1 + twice):
                say(base_url, row["prompt"])
            return said

        return rows_of(run, lambda read: "5", judged=judged)[0].verdict

    assert worth(True).score == 1.0 and worth(-0.5).score == -0.5 and not worth(-0.5).correct
    assert worth({"reward": 0.0, "correct": True}).correct
    assert worth(None, judged=True) is None, "the judge of the task says it"
    assert "no judge" in worth(None).reason and not worth(None).failed
    assert "2 rows" in worth(None, judged=True, twice=True).reason
    assert "returned str" in worth("4").reason and worth("4").failed
    assert "finite" in worth(float("nan")).reason and worth(float("nan")).failed
