"""The contexts behind which the tokens of a batch are looked at again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from policyopt.errors import UserError
from policyopt.models.text import Text
from policyopt.part import Look
from policyopt.rows import pad
from policyopt.schema import known, member
from policyopt.sources.program import Answered, Response


def contexts(look: Look, groups: Sequence[Answered], text: Text, longest: int) -> dict[str, Tensor]:
    """The column ``context[...]`` of a look, [N, P]: one row for each response of the groups that does not wait, in their order. A
    response that stands behind a context of its own is looked at behind that.

    Raises :class:`~policyopt.errors.UserError` where a context has more tokens than ``longest``, which leaves room for a response.
    """
    name = member("context", look.key)
    found = [
        _context(look, group, response, (*group.question.key, j), text)
        for group in groups
        for j, response in enumerate(group.responses)
        if response.use != "wait"
    ]
    most = max(map(len, found), default=0)
    if most > longest:
        raise UserError(
            f"{look.key} makes a context of {most} tokens, and the model has room for {longest} beside a response: let it make "
            "shorter ones, or lower --max-tokens"
        )
    return {name: pad(found, torch.long, known(name).padding)}


def _context(look: Look, group: Answered, response: Response, key: tuple[int, ...], text: Text) -> Sequence[int]:
    return response.context or text.prompt(look.messages(group.example.prompt, key))
