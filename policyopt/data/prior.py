"""Prior prompts: an instruction before every question of a task, and the form of response that it asks for.

=============  ====================================================================
``think``      think step by step, in a block ``<think>``
``plan``       lay out a plan, in a block ``<plan>``
``code``       work it out as a program, in a block ``<code>``
``knowledge``  collect what is known about it, in a block ``<knowledge>``
``examples``   recall examples of such questions, in a block ``<examples>``; none are given
=============  ====================================================================

Each asks for a block ``<answer>`` after it. The five styles are those of Prior Prompt Engineering, arXiv:2505.14157; the
wording is ours. A text of your own does as well: the first tag in it, ``<answer>`` aside, is the block it asks for;
without one the form of responses stays that of the task.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from functools import partial

from policyopt.data.changed import Changed
from policyopt.errors import UserError, nearest
from policyopt.items import Example, JudgeSpec, Task, user

_THEN = "Then give the final answer in <answer> and </answer>."

PRIORS: dict[str, str] = {
    "think": f"First think it through step by step in <think> and </think>. {_THEN}",
    "plan": f"First lay out a plan of how to solve it in <plan> and </plan>. {_THEN}",
    "code": f"First work it out as a short program in <code> and </code>. {_THEN}",
    "knowledge": f"First collect the facts that it takes in <knowledge> and </knowledge>. {_THEN}",
    "examples": f"First recall solved examples of such questions in <examples> and </examples>. {_THEN}",
}
"""The prior prompts by the tag of their block."""

_TAG = re.compile(r"<(?!answer>)(\w+)>")


def find_prior(prior: str) -> tuple[str, str | None]:
    """The text of a prior prompt, given by name or as itself, and the tag of the block that it asks for.

    Raises :class:`~policyopt.errors.UserError` for a single word that is no name, and for an empty text.
    """
    if not prior.strip():
        raise UserError("prior: an empty text asks for nothing; leave it out")
    if prior not in PRIORS and len(prior.split()) == 1:
        raise UserError(f"no prior prompt is called {prior!r}; {nearest(prior, PRIORS)}")
    text = PRIORS.get(prior, prior)
    tag = _TAG.search(text)
    return text, tag[1] if tag else None


def with_prior(task: Task, prior: str) -> Task:
    """The same task with a prior prompt before every question, and a judge that calls a response well formed when it
    has the blocks that the prompt asks for."""
    text, tag = find_prior(prior)
    judge = task.judge
    if tag is not None and judge is not None:
        judge = JudgeSpec("tagged", {"tag": tag, "judge": judge.name, "options": dict(judge.options)})
    return dataclasses.replace(task, train=_before(task.train, text), heldout=_before(task.heldout, text), judge=judge)


def _before(examples: Sequence[Example], text: str) -> Sequence[Example]:
    """The examples with a text before them; what is made on demand stays so."""
    found = Changed(examples, partial(prefixed, text=text))
    return tuple(found) if isinstance(examples, list | tuple) else found


def prefixed(example: Example, text: str) -> Example:
    """An example with a text before the first message of the user."""
    messages = list(example.prompt)
    first = next((i for i, m in enumerate(messages) if m["role"] == "user"), None)
    if first is None:
        return dataclasses.replace(example, prompt=(*user(text), *messages))
    messages[first] = {**messages[first], "content": f"{text}\n\n{messages[first]['content']}"}
    return dataclasses.replace(example, prompt=tuple(messages))
