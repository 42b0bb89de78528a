"""Tasks from reasoning-gym: the built-in ones, and ``reasoning-gym:NAME`` for every dataset of the library."""

from __future__ import annotations

import base64
import difflib
import hashlib
import json
import os
import pickle
import random
from collections.abc import Mapping
from typing import Any

from policyopt.data.builtin import BUILTIN, Builtin
from policyopt.data.made import Made
from policyopt.errors import UserError
from policyopt.items import Example, JudgeSpec, Task, user
from policyopt.judging.answers import MARK

LENGTH = 1_000_000
"""Training questions of a built-in task: they are made when asked for, so this costs nothing."""
LIBRARY_LENGTH = 4_000
"""Training questions of ``reasoning-gym:NAME``: a few datasets of the library prepare something for every question."""

_HELDOUT_SHARE = 4
_TRIES = 200


def held_out(prompt: str) -> bool:
    """Whether a prompt belongs to the held-out quarter of all prompts: a hash of its text decides, not the seed."""
    return hashlib.blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=8).digest()[0] % _HELDOUT_SHARE == 0


def generator(name: str, config: Mapping[str, Any], seed: int, size: int) -> Any:
    """The generator ``name`` of reasoning-gym, seeded far away from that of any other ``seed``."""
    import reasoning_gym

    # The library's entry i of seed s is entry i - 1 of seed s + 1, and some of its datasets take 32 bits
    base = int.from_bytes(hashlib.blake2b(f"policyopt {seed}".encode(), digest_size=4).digest(), "big") >> 1
    return reasoning_gym.create_dataset(name, **config, seed=base, size=size)


class Questions(Made[Example]):
    """Training questions, generated when indexed.

    Question i is the first of draws i, i + n, i + 2 n, ... (modulo the size of the source) that is not held out, n the
    number of questions: the same seed gives the same questions, in any order of access.
    """

    def __init__(self, name: str, source: Any, length: int, builtin: Builtin | None) -> None:
        super().__init__(length)
        self.name, self.source, self.builtin = name, source, builtin

    def _make(self, index: int) -> Example:
        for draw in range(index, index + _TRIES * self.length, self.length):
            example = make_example(f"{self.name}-{index}", self.source, draw % len(self.source), self.builtin)
            if not held_out(example.prompt[0]["content"]):
                return example
        raise UserError(
            f"task {self.name!r}: {_TRIES} draws in a row gave only held-out prompts, "
            "so the dataset has hardly any different ones"
        )


def _seeded_entry(source: Any, draw: int) -> Any:
    """Entry ``draw``, with Python's global random state set for it: a few generators of the library draw from there."""
    state = random.getstate()
    random.seed(draw)
    try:
        return source[draw]
    finally:
        random.setstate(state)


def make_example(id: str, source: Any, draw: int, builtin: Builtin | None) -> Example:
    """Entry ``draw`` of a generator as an example."""
    if builtin is None:
        entry = _seeded_entry(source, draw)
        text = f"{entry['question'].rstrip()}\n\nEnd with a line that starts with {MARK}, then the answer alone."
        # The library's scoring tells tuples from lists, which JSON does not
        packed = base64.b64encode(pickle.dumps(entry)).decode()
        return Example(id, user(text), str(entry["answer"] or ""), meta={"entry": packed})
    entry = source[draw]
    solution = builtin.solution(entry)
    answer = solution.rsplit(MARK, 1)[1].strip() if MARK in solution else entry["answer"]
    metadata = json.loads(json.dumps(entry["metadata"]))
    meta = {"answer": entry["answer"], "metadata": metadata}
    return Example(
        id, user(builtin.prompt(entry)), answer, solution, meta,
        hasty=builtin.shortcut(entry), source=entry.get("source", ""), rivals=tuple(entry.get("rivals", ())),
    )  # fmt: skip


def reasoning_task(name: str, *, seed: int, heldout: int, builtin: Builtin | None) -> Task:
    """A task from the dataset ``name`` of reasoning-gym.

    The held-out questions are the same whatever the seed, so that runs with different seeds are measured alike.
    Raises ``UserError`` when the dataset has fewer different held-out prompts than asked for.
    """
    config = builtin.config if builtin else {}
    label = name if builtin else f"reasoning-gym:{name}"
    length = LENGTH if builtin else LIBRARY_LENGTH
    size = 5 * length - 1
    held = heldout_questions(label, generator(name, config, -1, size), heldout, builtin)
    train = Questions(label, generator(name, config, seed, size), length, builtin)
    judge = JudgeSpec("reasoning-gym", {"dataset": name, "builtin": builtin is not None})
    if builtin is None:
        return Task(label, train, held, judge, 1024)
    return Task(label, train, held, judge, builtin.max_tokens, builtin.warm_start)


def heldout_questions(label: str, source: Any, heldout: int, builtin: Builtin | None) -> tuple[Example, ...]:
    """The first ``heldout`` different questions of a generator that are held out.

    Raises ``UserError`` where it has fewer.
    """
    found: dict[str, Example] = {}
    for draw in range(min(len(source), _TRIES + 16 * _HELDOUT_SHARE * heldout)):
        if len(found) == heldout:
            break
        example = make_example(f"{label}-heldout-{len(found)}", source, draw, builtin)
        text = example.prompt[0]["content"]
        if held_out(text) and text not in found:
            found[text] = example
    if len(found) < heldout:
        raise UserError(
            f"task {label!r} gave only {len(found)} different held-out questions, {heldout} were asked for: "
            "lower heldout"
        )
    return tuple(found.values())


# Their questions depend on the order of Python's sets, which changes from process to process
_HASH_DEPENDENT = frozenset(
    {
        "intermediate_integration",
        "isomorphic_strings",
        "knight_swap",
        "polynomial_multiplication",
        "ransom_note",
        "word_ladder",
    }
)
_REFUSED = {
    "composite": "it is a mixture that needs a configuration",
    "codeio": "it runs code snippets to make its questions, and makes other questions each time",
}


def load_reasoning(name: str, *, builtin: bool, seed: int = 0, heldout: int = 256) -> Task:
    """The built-in task ``name``, or the dataset ``name`` of reasoning-gym with the library's own prompts and scoring.

    Raises ``UserError`` for an unknown name, and for a dataset that a run could not repeat.
    """
    if builtin:
        return reasoning_task(name, seed=seed, heldout=heldout, builtin=BUILTIN[name])
    from reasoning_gym.factory import DATASETS

    names = sorted(set(DATASETS) - set(_REFUSED))
    if name in _REFUSED:
        raise UserError(f"reasoning-gym:{name} cannot be a task: {_REFUSED[name]}")
    if name not in names:
        close = ", ".join(difflib.get_close_matches(name, names, n=3, cutoff=0.5)) or "none"
        raise UserError(
            f"reasoning-gym has no dataset {name!r}; nearest: {close}. All {len(names)}: {', '.join(names)}"
        )
    if name in _HASH_DEPENDENT and os.environ.get("PYTHONHASHSEED", "random") == "random":
        raise UserError(
            f"reasoning-gym:{name} makes other questions in every process, so a run could not be repeated or resumed: "
            "set the environment variable PYTHONHASHSEED=0 first"
        )
    return reasoning_task(name, seed=seed, heldout=heldout, builtin=None)
