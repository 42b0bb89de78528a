"""The contexts behind which the tokens of a batch are looked at again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from policyopt.errors import UserError
from policyopt.items import Attempt, Verdict
from policyopt.models.text import Text
from policyopt.part import Look
from policyopt.rows import pad
from policyopt.schema import known, member
from policyopt.sources.program import Answered


def contexts(look: Look, groups: Sequence[Answered], text: Text, longest: int) -> dict[str, Tensor]:
    """The column ``context[...]`` of a look, [N, P]: one row for each response of the groups that does not wait, in their order. A
    response that stands behind a context of its own is looked at behind that.

    Raises :class:`~policyopt.errors.UserError` where a context has more tokens than ``longest``, which leaves room for a response.
    """
    name = member("context", look.key)
    found = [context for group in groups for context in _contexts(look, group, text)]
    most = max(map(len, found), default=0)
    if most > longest:
        raise UserError(
            f"{look.key} makes a context of {most} tokens, and the model has room for {longest} beside a response: let it make "
            "shorter ones, or lower --max-tokens"
        )
    return {name: pad(found, torch.long, known(name).padding)}


def _contexts(look: Look, group: Answered, text: Text) -> Iterator[Sequence[int]]:
    """The context of each response of a group that does not wait."""
    attempts: list[Attempt] = []
    if type(look).hindsight is not Look.hindsight:  # texts are made for looks that read them
        said = [r.verdict or Verdict.absent() for r in group.responses]
        texts = text.responses([r.tokens for r in group.responses])
        attempts = [Attempt(*each) for each in zip(texts, said, strict=True)]
    for j, response in enumerate(group.responses):
        if response.use != "wait":
            key = (*group.question.key, j)
            yield response.context or text.prompt(look.hindsight(group.example, attempts, j, key))
