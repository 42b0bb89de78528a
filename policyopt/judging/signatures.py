"""How a Python function wants to be called as a judge, read off the names of its parameters.

==============================================  ==============================================================
``f(prompt, response, answer)``                 any of them by name, and columns of the data row by theirs:
                                                ``f(response, difficulty)``; ``**kwargs`` gets all the rest
``f(a, b, c)``                                  three parameters of any names: prompt, response, answer
``f(completions, prompts, answer, **kwargs)``   TRL: lists, one entry for each response; columns are lists too
``f(data_source, solution_str, ground_truth,``  verl: one response
``extra_info=None)``
``f(prompt, a, b)``                             two responses, compared: the probability that ``a``, shown first, is the
                                                better one (:mod:`policyopt.judging.comparing`); columns by name, too
``f(prompt, responses)``                        all responses to a prompt, compared: such a number for each two of them
==============================================  ==============================================================
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping, Sequence
from inspect import Parameter, Signature
from typing import Any, Literal

from policyopt.items import Example

Style = Literal["named", "three", "lists", "verl", "pair", "group"]
COMPARING: tuple[Style, ...] = ("pair", "group")
"""Styles of functions that compare responses."""

ALIASES = {
    "question": "prompt", "problem": "prompt", "query": "prompt", "instruction": "prompt",
    "completion": "response", "output": "response", "generation": "response",
    "ground_truth": "answer", "reference": "answer", "target": "answer", "gold": "answer",
}  # fmt: skip
"""Other names of what every judge may read, for parameters without a default where the row has no column of that name."""
OWN = ("prompt", "response", "answer", "solution")
_RESPONSES = {"response", *(name for name, meant in ALIASES.items() if meant == "response")}
_KINDS = {
    "lists": ("prompts", "completions"),
    "verl": ("data_source", "solution_str", "ground_truth", "extra_info"),
    "pair": ("a", "b"),
    "group": ("responses",),
}
"""What a row has under these names, whatever its columns are."""

ASKED = (
    "prompt, response and answer, or columns of the row by name (TRL's completions and verl's solution_str are "
    "understood too; a and b, or responses, are responses that it compares)"
)


class Missing(Exception):
    """A function asks for a column that a row does not have."""


def signature_of(args: ast.arguments) -> Signature:
    """The signature that a definition in a file gives; defaults are there, their values are not."""
    kinds = ((args.posonlyargs, Parameter.POSITIONAL_ONLY), (args.args, Parameter.POSITIONAL_OR_KEYWORD))
    plain = [(a.arg, kind) for some, kind in kinds for a in some]
    first = len(plain) - len(args.defaults)
    found = [Parameter(n, kind, default=Parameter.empty if i < first else None) for i, (n, kind) in enumerate(plain)]
    if args.vararg:
        found.append(Parameter(args.vararg.arg, Parameter.VAR_POSITIONAL))
    for a, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        found.append(Parameter(a.arg, Parameter.KEYWORD_ONLY, default=Parameter.empty if default is None else None))
    if args.kwarg:
        found.append(Parameter(args.kwarg.arg, Parameter.VAR_KEYWORD))
    return Signature(found)


def style_of(signature: Signature, options: Collection[str]) -> Style | None:
    """How a function is called; ``None`` where it can be no judge, or takes not all of the options."""
    named = _named(signature)
    if not any(p.kind is Parameter.VAR_KEYWORD for p in signature.parameters.values()) and set(options) - set(named):
        return None
    if "completions" in named:
        return "lists"
    if "solution_str" in named:
        return "verl"
    if _RESPONSES & set(named):
        return "named"
    if "responses" in named:
        return "group"
    if {"a", "b"} <= named.keys() and "c" not in named:  # f(a, b, c): three of any names
        return "pair"
    try:
        signature.bind("prompt", "response", "answer", **dict.fromkeys(options))
    except TypeError:
        return None
    return "three"


def columns_read(signature: Signature, options: Collection[str]) -> tuple[str, ...]:
    """The columns of a row that a function cannot do without."""
    style = style_of(signature, options)
    if style in (None, "three"):
        return ()
    known = {*OWN, *options, *_KINDS.get(str(style), ()), *(ALIASES if style != "lists" else ())}
    known |= {name for name, meant in ALIASES.items() if meant != "response"}
    return tuple(p.name for p in _named(signature).values() if p.default is Parameter.empty and p.name not in known)


def arguments(
    style: Style, signature: Signature, items: Sequence[tuple[Example, Any]], options: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """What a function is called with for a response, or in the style "lists" for several; a function that compares has a tuple of
    texts in the place of the response.

    Raises :class:`Missing` for a column that it cannot do without and the row does not have.
    """
    if style == "three":
        [(example, response)] = items
        return [prompt_of(example), response, example.answer], dict(options)
    if style == "lists":
        given = _lists(items)
    else:
        [(example, response)] = items
        given = {**example.meta, **_own(example)}
        if style == "pair":
            given["a"], given["b"] = response
        else:
            given["responses" if style == "group" else "response"] = list(response) if style == "group" else response
        if style == "verl":
            given |= _verl(example, response)
    given |= options
    place = items[0][0].id if len(items) == 1 else f"{items[0][0].id} to {items[-1][0].id}"
    return _bound(signature, given, place)


def _named(signature: Signature) -> dict[str, Parameter]:
    """Parameters that stand for one thing each."""
    several = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    return {name: p for name, p in signature.parameters.items() if p.kind not in several}


def _bound(signature: Signature, given: Mapping[str, Any], place: str) -> tuple[list[Any], dict[str, Any]]:
    """The values of parameters by name; those that have no name of their own go to ``**kwargs``."""
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    for name, p in _named(signature).items():
        required = p.default is Parameter.empty
        source = ALIASES.get(name, name) if required and name not in given else name
        if source not in given:
            if required:
                has = ", ".join(x for x in given if x not in OWN) or "no columns beside prompt and answer"
                raise Missing(f"asks for the column {name!r}, which {place} does not have (it has {has})")
            if p.kind is Parameter.POSITIONAL_ONLY:
                positional.append(p.default)
        elif p.kind is Parameter.POSITIONAL_ONLY:
            positional.append(given[source])
        else:
            keywords[name] = given[source]
    if any(p.kind is Parameter.VAR_KEYWORD for p in signature.parameters.values()):
        taken = set(_named(signature))
        keywords |= {name: x for name, x in given.items() if name not in taken}
    return positional, keywords


# What a row gives ----------------------------------------------------------------------------------------------------


def _is_text(example: Example) -> bool:
    """Whether a prompt is one message of the user."""
    return len(example.prompt) == 1 and example.prompt[0]["role"] == "user"


def is_chat(example: Example) -> bool:
    """Whether a prompt was given as messages, not as text."""
    return example.chat or not _is_text(example)


def prompt_of(example: Example) -> str | list[dict[str, str]]:
    """The prompt as a judge's function gets it: text where it is one user message, else the list of messages."""
    if _is_text(example):
        return example.prompt[0]["content"]
    return [dict(message) for message in example.prompt]


def _own(example: Example) -> dict[str, Any]:
    return {"prompt": prompt_of(example), "answer": example.answer, "solution": example.solution}


def _verl(example: Example, response: str) -> dict[str, Any]:
    return {
        "data_source": example.meta.get("data_source", example.id.rpartition(":")[0]),
        "solution_str": response,
        "ground_truth": example.answer,
        "extra_info": example.meta.get("extra_info", dict(example.meta)),
    }


def _lists(items: Sequence[tuple[Example, str]]) -> dict[str, Any]:
    """TRL's: columns as lists; where prompts are chats, a completion is the list of what the assistant says."""
    examples = [example for example, _ in items]
    columns = dict.fromkeys(name for example in examples for name in example.meta)
    given: dict[str, Any] = {name: [example.meta.get(name) for example in examples] for name in columns}
    given |= {"answer": [e.answer for e in examples], "solution": [e.solution for e in examples]}
    chats = any(map(is_chat, examples))
    prompts = [[dict(m) for m in e.prompt] if chats else prompt_of(e) for e in examples]
    said = [[{"role": "assistant", "content": text}] if chats else text for _, text in items]
    return given | {"prompts": prompts, "prompt": prompts, "completions": said}
