"""Agents as episodes: somebody else's program asks the policy as it would ask any model, and what was drawn for it becomes rows.

Requests that go on where an earlier one ended are one row: what was drawn stays as it was drawn, only what is new is encoded. An agent
that rewrites its history, asks about several things or asks twice has several rows, all of which the episode's reward is for."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from policyopt.environments.agent import Agent, outcome
from policyopt.environments.calls import Call, before_calls, find_calls
from policyopt.environments.chat import Chat, Refusal, Reply, behind_last, digest, size, spoken
from policyopt.environments.endpoint import endpoint
from policyopt.environments.outside import Outside, Overdue
from policyopt.environments.world import Observation
from policyopt.errors import UserError, first_line
from policyopt.items import Example, Verdict
from policyopt.models.talk import told
from policyopt.sources.desk import Begun
from policyopt.sources.episodes import Player, brought, extend, listen, number_of, seed_of
from policyopt.sources.program import Question, Response, Sampler

CHARACTERS = 16
"""Characters of a request for each token of the model's context, beyond which it is not even encoded."""


@dataclass(eq=False)
class _Row:
    """What one course of a conversation has come to."""

    prompt: tuple[int, ...]
    response: Response
    ends: list[int] = field(default_factory=list)
    states: list[int] = field(default_factory=list)
    busy: bool = False
    """A request that goes on with it is being answered."""

    def tokens(self, at: int) -> tuple[int, ...]:
        """Its prompt and the first tokens of its response."""
        return (*self.prompt, *self.response.tokens[:at])


@dataclass(frozen=True, eq=False)
class _Said:
    """A conversation up to an answer, and where that stands in tokens."""

    messages: tuple[str, ...]
    """Digests of the messages, the answer included."""
    tools: tuple[Any, ...]
    row: _Row
    at: int
    """Tokens of the row's response."""


@dataclass(frozen=True, eq=False)
class _Place:
    """Where a request goes on."""

    row: _Row
    heard: tuple[int, ...] = ()
    """What the policy reads behind the row before it answers."""

    @property
    def tokens(self) -> tuple[int, ...]:
        return (*self.row.tokens(len(self.row.response.tokens)), *self.heard)


@dataclass(eq=False)
class _Episode:
    """One episode: answers the requests of its agent."""

    player: AgentPlayer
    question: Question
    sampler: Sampler
    temperature: float
    key: tuple[int, ...]
    most: int
    """The most requests."""
    own_heat: bool
    rows: list[_Row] = field(default_factory=list)
    said: list[_Said] = field(default_factory=list)
    asked: dict[int, int] = field(default_factory=dict)
    """How often the same was asked."""
    requests: int = 0
    full: str = ""
    """Why a request was refused that there was no room for."""
    broken: BaseException | None = None
    """What went wrong in drawing, which is no fault of the agent."""

    async def answer(self, chat: Chat) -> Reply:
        """What the policy says to a request. Raises :class:`~policyopt.environments.chat.Refusal` where it may not be asked."""
        if self.requests >= self.most:
            self.full = f"it asked more often than the {self.most} times that an episode may (--env-options turns=N)"
            raise Refusal(self.full, 400, "too_many_requests")
        self.requests += 1
        number = self.requests
        try:
            place = self._place(chat)
            place.row.busy = True
            try:
                return await self._drawn(chat, place, number)
            finally:
                place.row.busy = False
        except Refusal:
            raise
        except Exception as error:
            self.broken = self.broken or error
            raise

    # Where a request goes on -------------------------------------------------------------------------------------------

    def _place(self, chat: Chat) -> _Place:
        """Behind the longest conversation so far that the request goes on with, or at the beginning of a row of its own."""
        text, player = self.player.text, self.player
        if size(chat) > CHARACTERS * player.context:
            raise self._no_room(
                f"the messages have {size(chat)} characters, and the model reads {player.context} tokens"
            )
        digests = tuple(digest(m) for m in chat.messages)
        for one in sorted(self.said, key=lambda s: -len(s.messages)):
            known = len(one.messages)
            new = behind_last(chat.messages, known) if one.tools == chat.tools else None
            if new is None or digests[:known] != one.messages:
                continue
            tokens = one.row.tokens(one.at)
            heard = text.following(new, tokens[-1], chat.tools)
            end = one.at == len(one.row.response.tokens) and not one.row.busy
            if end and self._heat(chat) == one.row.response.temperature:
                return _Place(one.row, heard)
            return self._begun((*tokens, *heard), chat)  # what was drawn is read, and trained on in the row where it is
        try:
            return self._begun(text.prompt(told(text.tokenizer, chat.messages), chat.tools), chat)
        except UserError as error:
            raise Refusal(str(error)) from None

    def _begun(self, prompt: tuple[int, ...], chat: Chat) -> _Place:
        return _Place(_Row(prompt, Response([], [], [], temperature=self._heat(chat))))

    def _heat(self, chat: Chat) -> float:
        return self._asked_heat(chat) or 1.0

    def _asked_heat(self, chat: Chat) -> float:
        """The temperature of an answer; a run that draws greedily does so whatever is asked for."""
        own = self.own_heat and self.temperature and chat.temperature is not None
        return chat.temperature if own and chat.temperature is not None else self.temperature

    def _no_room(self, why: str) -> Refusal:
        self.full = why
        return Refusal(f"there is no room for an answer: {why}", 400, "context_length_exceeded")

    # An answer -----------------------------------------------------------------------------------------------------------

    async def _drawn(self, chat: Chat, place: _Place, number: int) -> Reply:
        row, tokens, limits = place.row, place.tokens, self.player.limits
        budget = min(self.question.budget, self.player.context - len(row.prompt))
        room = budget - len(row.response.tokens) - len(place.heard)
        if room < 1:
            raise self._no_room(
                f"the conversation has {len(tokens)} tokens; the model reads {self.player.context} and an episode may have "
                f"{self.question.budget} behind its prompt (--max-tokens)"
            )
        most = min(room, chat.most or room, limits.turn_tokens or room)
        state = number_of(repr(tokens))
        again = self.asked[state] = self.asked.get(state, -1) + 1
        stop: dict[str, Any] = {}
        if chat.stop and self.player.stops:
            stop = {"stop": [self.player.text.encode(s) for s in chat.stop]}
        [drawn] = await self.sampler.generate(
            tokens,
            max_tokens=most,
            temperature=self._asked_heat(chat),
            key=(*self.key, state, again),
            keep=True,
            **stop,
        )
        text, stopped = self._until(drawn, chat.stop)
        if row not in self.rows:
            self.rows.append(row)
        if place.heard:
            listen(row.response, place.heard)
        extend(row.response, drawn)
        row.states.append(state)
        row.ends.append(len(row.response.tokens) - 1)
        row.response.stop_reason = "length" if drawn.stop_reason == "length" and not stopped else "eos"
        reply = self._reply(chat, drawn, text, stopped, len(tokens), number)
        messages = (*(digest(m) for m in chat.messages), digest(spoken(reply)))
        self.said.append(_Said(messages, chat.tools, row, len(row.response.tokens)))
        return reply

    def _until(self, drawn: Response, stops: Sequence[str]) -> tuple[str, bool]:
        """The text of an answer before the first of some texts, and whether one stands in it; what was drawn behind it is cut off."""
        text = self.player.text.decode(drawn.tokens)
        at = min((at for s in stops if (at := text.find(s)) >= 0), default=-1)
        if at < 0:
            return text, False
        low, high = 1, len(drawn.tokens)
        while low < high:  # the fewest tokens that hold a whole one
            middle = (low + high) // 2
            said = self.player.text.decode(drawn.tokens[:middle])
            low, high = (low, middle) if any(s in said for s in stops) else (middle + 1, high)
        for cells in (drawn.tokens, drawn.logp, drawn.entropy, drawn.versions, drawn.heat, drawn.support):
            del cells[low:]
        return text[:at], True

    def _reply(self, chat: Chat, drawn: Response, text: str, stopped: bool, read: int, number: int) -> Reply:
        calls: list[Call] = []
        if chat.tools and chat.calls:
            found, _ = find_calls(self.player.text.whole(drawn.tokens), self.player.form)
            calls = [dataclasses.replace(c, id=c.id or f"call_{number}_{i}") for i, c in enumerate(found)]
        cut = drawn.stop_reason == "length" and not stopped
        finish = "tool_calls" if calls else "length" if cut else "stop"
        said = before_calls(text, self.player.form) if calls else text
        return Reply(said, tuple(calls), finish, read, len(drawn.tokens), number)


@dataclass
class AgentPlayer(Player):
    """Plays the episodes of a run whose environment is an agent (:class:`~policyopt.environments.agent.Agent`).

    The temperature is that of the run unless the agent was made with its own, and so is what draws are truncated to. A request's key is
    made of what the policy reads, so that the same agent draws the same, however its requests come together.
    """

    stops: bool = False
    """The engine ends answers at token sequences; otherwise what stands behind a stop text is drawn and cut off."""

    async def play(
        self, example: Example, question: Question, sampler: Sampler, *, n: int, temperature: float,
        key: tuple[int, ...], begun: Begun | None = None,
    ) -> list[Response]:  # fmt: skip
        """See :class:`~policyopt.sources.episodes.Player`. The rows of an episode have its number in the column ``episode``, and are numbered
        by ``turn``. Raises :class:`~policyopt.errors.UserError` where it is to be gone on with: an agent always begins anew."""
        if begun is not None:
            raise UserError(
                "the method goes on from inside of episodes, and an agent always begins anew: take an environment (--env)"
            )
        played = (self._played(example, question, sampler, temperature, (*key, i)) for i in range(n))
        episodes = await asyncio.gather(*played)
        for i, rows in enumerate(episodes):
            for row in rows:
                row.columns["episode"] = float(i)
        return [row for rows in episodes for row in rows]

    async def _played(
        self, example: Example, question: Question, sampler: Sampler, temperature: float, key: tuple[int, ...]
    ) -> list[Response]:
        async with self._gate():
            agent: Agent = self.make()  # type: ignore[assignment]
            outside = agent.outside = Outside(self.limits.seconds)
            most = self.limits.turns or agent.turns
            episode = _Episode(self, question, sampler, temperature, key, most, agent.own_heat)
            seat = endpoint().open(episode.answer)
            try:
                said = await agent.run(
                    self.limits.seconds,
                    base_url=seat.url,
                    api_key=seat.key,
                    seed=seed_of(example),
                    row=brought(example),
                )
                verdict = self._worth(outcome(said), episode)
            except UserError:
                raise
            except Exception as error:  # the agent is somebody else's program, which raises what it likes
                verdict = self._failure(error, episode)
            finally:
                endpoint().close(seat)
                outside.close()
            if episode.broken is not None:
                raise episode.broken
            return self._rows(episode, verdict)

    def _worth(self, said: Observation, episode: _Episode) -> Verdict | None:
        if not episode.rows:
            return Verdict.absent("the agent asked the model nothing in this episode")
        if said.reward is None:
            if not self.judged:
                return Verdict.absent("the agent returned no reward for this episode, and the task has no judge")
            if len(episode.rows) > 1:
                return Verdict.absent(
                    f"the conversation of this episode became {len(episode.rows)} rows, none of which a judge could take for the "
                    "answer: have the agent return the reward"
                )
            return None
        correct = said.correct if said.correct is not None else said.reward > 0
        reason = said.reason or f"the agent returned {said.reward:g}"
        return Verdict(said.reward, correct, True, reason, parts=dict(said.numbers))

    def _failure(self, error: Exception, episode: _Episode) -> Verdict:
        if isinstance(error, Overdue):
            return Verdict.failure(f"{error} (--episodes.seconds)")
        what = f"{type(error).__name__}: {first_line(error)}"
        if episode.full:
            return Verdict.absent(
                f"the agent gave up ({what}) where {episode.full}: have it catch that and return what it is worth"
            )
        return Verdict.failure(f"the agent failed: {what}")

    def _rows(self, episode: _Episode, verdict: Verdict | None) -> list[Response]:
        rows = episode.rows or [
            _Row(episode.question.tokens, Response([], [], [], temperature=episode.temperature or 1.0))
        ]
        reward = verdict.score if verdict is not None and verdict.rewarded else 0.0
        for number, row in enumerate(rows):
            response = row.response
            response.verdict, response.turn = verdict, number
            if row.prompt != episode.question.tokens:
                response.context = row.prompt
            turns = len(row.ends)
            response.columns |= {
                "turn_end": list(row.ends), "turn_state": list(row.states),
                "turn_reward": [0.0] * (turns - 1) + [reward] * (turns > 0), "turn_duration": [0.0] * turns,
            }  # fmt: skip
        return [row.response for row in rows]
