"""What a recipe may ask of an engine beyond drawing tokens and their log-probabilities: named, so that an engine without it
can say so before the run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from policyopt.errors import UserError, nearest
from policyopt.part import Critic, Look, Part, Probe, Reference, within
from policyopt.parts import GroupStatistic
from policyopt.schema import role_of
from policyopt.sources.program import SERVICES, Rollout
from policyopt.sources.source import Source

CAPABILITIES: Mapping[str, str] = {
    # Drawing
    "logit processors": "a Python function changes the logits of the next token (`processor`)",
    "temperature from logits": "the temperature of a token is a function of its logits (`temperature`)",
    "forced tokens": "a response begins with given tokens, scored as if they had been drawn (`forced`)",
    "stop sequences": "a response ends after any of many token sequences (`stop`), and where a text of the run ends (`Text.stops`)",
    "resume": "a response that was cut is gone on with, in place (`resume`)",
    "top alternatives": "the likeliest tokens at each place, with their log-probabilities (`top`)",
    "scoring": "log-probabilities and entropies of a text that somebody else wrote (`Sampler.logprobs`)",
    "truncated draws": "tokens are drawn from the likeliest alone (`truncation`), and log-probabilities are taken over those",
    "token embeddings": "the input embeddings of token ids (`Sampler.embed`)",
    "sampling entropy": "the entropy of the distribution that each token was drawn from (`Response.entropy`)",
    "role sampling": "drawing from another model than the policy (`Context.sampler_of`)",
    "routing replay": "the experts of a mixture of experts are recorded and taken again in training (`routing_replay`)",
    # Scoring and updating
    "temperature": "log-probabilities at another temperature than 1, with their gradient",
    "entropy": "the entropy of the policy's distribution at each token, with its gradient",
    "statistics": "any function of the logits of the policy at a token, with its gradient",
    "role logits": "statistics that read the logits of another model beside the policy's",
    "group statistics": "functions of the distributions and hidden states of all responses to a prompt, without gradient",
    "second looks": "log-probabilities of the same tokens behind another context (`Look`), without gradient",
    "roles": "frozen models beside the policy that score the same tokens",
    "moving roles": "models beside the policy that follow it from step to step",
    "critic": "a value function that is trained beside the policy",
    "gradient noise": "how much the gradients of parts of a mini-batch differ (`gradient/noise`)",
    "parameters": "the trained parameters by name, now and before the first step",
}
"""Each with a sentence on what an engine that declares it does."""

_BY_COLUMN = {"entropy": "entropy", "sampled_entropy": "sampling entropy", "value": "critic"}


def asks_of(part: Part) -> frozenset[str]:
    """The capabilities that a part or a program asks for: those that it declares (``asks``), those that follow from what
    it reads, and those of the parts within it.

    Raises ``ValueError`` for one that is not in :data:`CAPABILITIES`, and for a service that a program uses and that there is
    not.
    """
    named = {*part.asks, *_derived(part)}
    for unknown in sorted(named - CAPABILITIES.keys()):
        raise ValueError(
            f"{type(part).__name__} asks for {unknown!r}, which is no capability; {nearest(unknown, list(CAPABILITIES))}"
        )
    return frozenset(named).union(*map(asks_of, within(part)))


def _derived(part: Part) -> Iterator[str]:
    for column in part.needs:
        if (role := role_of(column)) is not None:
            yield "moving roles" if role == "previous" else "roles"
        elif column in _BY_COLUMN:
            yield _BY_COLUMN[column]
    statistics = (*part.live, *part.fixed)
    for s in statistics:
        yield "group statistics" if isinstance(s, GroupStatistic) else "statistics"
    if isinstance(part, Look):
        yield "second looks"
        if part.role != "policy":
            yield "roles"
    if any(s.roles for s in statistics):
        yield from ("roles", "role logits")
    if isinstance(part, Critic):
        yield "critic"
    if isinstance(part, Reference) and part.moves:
        yield "moving roles"
    if isinstance(part, Probe) and type(part).parameters is not Probe.parameters:
        yield "parameters"
    if isinstance(part, Source):
        _check_uses(part)
        if part.roles:
            yield from ("roles", "role sampling")
        if part.temperature != 1:
            yield "temperature"
        if isinstance(part, Rollout) and part.truncation:
            yield "truncated draws"
        if isinstance(part, Rollout) and part.routing_replay != "no":
            yield "routing replay"


def _check_uses(program: Source) -> None:
    for service in sorted(program.uses):
        if service not in SERVICES and not service.startswith("sampler_of["):
            raise ValueError(
                f"{type(program).__name__} uses {service!r}, which is no service; {nearest(service, list(SERVICES))}"
            )


def asks(parts: Iterable[tuple[str, Part]]) -> dict[str, tuple[str, ...]]:
    """The capabilities that parts with their paths ask for -> who asks, as ``"source Tree"``."""
    who: dict[str, list[str]] = {}
    for path, part in parts:
        for capability in asks_of(part):
            name = type(part).__name__
            who.setdefault(capability, []).append(path if path.endswith(f".{name}") else f"{path} {name}")
    return {capability: tuple(who[capability]) for capability in CAPABILITIES if capability in who}


def refuse_missing(method: str, asked: Mapping[str, Iterable[str]], has: Iterable[str], engine: str) -> None:
    """Raises :class:`~policyopt.errors.UserError` naming every capability that is asked for and that an engine has not."""
    has = frozenset(has)
    missing = [
        f"{capability!r} ({', '.join(who)}): {CAPABILITIES[capability]}"
        for capability, who in asked.items()
        if capability not in has
    ]
    if missing:
        raise UserError(
            f"{method} asks for what the engine {engine!r} does not have: {'; '.join(missing)}. "
            "Take another engine, or replace these parts"
        )
