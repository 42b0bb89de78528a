"""Numbers of the turns of an episode [N, K], and their places among its tokens [N, T].

A turn is what the policy says between two things that the environment says; ``turn_end`` holds the index of its last token, -1
where an episode has no such turn.
"""

from __future__ import annotations

import torch
from torch import Tensor

from policyopt.rows import Batch, masked


def turn_ends(batch: Batch) -> Tensor:
    """[N, K] ``turn_end``; a row of which no environment has said anything is one turn, which ends with its last token."""
    last = (batch.terminal().argmax(-1, keepdim=True)).masked_fill(batch.mask.sum(-1, keepdim=True) == 0, -1)
    if batch.turn_end is None:
        return last
    first = torch.arange(batch.turn_end.shape[1], device=last.device) == 0
    return torch.where((batch.turn_end < 0).all(-1, keepdim=True) & first, last, batch.turn_end)


def turns_there(batch: Batch) -> Tensor:
    """[N, K] whether an episode has a turn of that number."""
    return turn_ends(batch) >= 0


def turn_of(batch: Batch) -> Tensor:
    """[N, T] the number of the turn that each token belongs to: what the environment says before a turn counts to it, what
    stands behind the last one has the number of turns."""
    ends = turn_ends(batch)
    ends = torch.where(ends >= 0, ends, batch.mask.shape[1])
    position = torch.arange(batch.mask.shape[1], device=ends.device)
    return (ends[:, None, :] < position[:, None]).sum(-1)


def on_tokens(batch: Batch, x: Tensor) -> Tensor:
    """[N, T] a number of each turn, x [N, K], on every token that the policy wrote in that turn; 0 elsewhere."""
    known = torch.where(turns_there(batch), x, torch.zeros((), dtype=x.dtype, device=x.device))
    padded = torch.cat([known, torch.zeros_like(known[:, :1])], 1)
    return padded.gather(1, turn_of(batch).clamp(max=x.shape[1])) * batch.mask


def at_ends(batch: Batch, x: Tensor) -> Tensor:
    """[N, T] a number of each turn, x [N, K], on the last token of that turn; 0 elsewhere."""
    ends = turn_ends(batch)
    found = torch.zeros(batch.mask.shape, dtype=x.dtype, device=x.device)
    known = torch.where(ends >= 0, x, torch.zeros((), dtype=x.dtype, device=x.device))
    return found.scatter_add(1, ends.clamp(min=0), known)


def turn_means(batch: Batch, x: Tensor) -> Tensor:
    """[N, K] the mean of x [N, T] over the tokens that the policy wrote in each turn; 0 where it wrote none."""
    turns = turn_ends(batch).shape[1]
    place, mask = turn_of(batch), batch.mask * (turn_of(batch) < turns)
    place, none = place.clamp(max=turns - 1), torch.zeros_like(x[:, :1]).repeat(1, turns)
    return none.scatter_add(1, place, masked(x, mask)) / none.scatter_add(1, place, mask).clamp(min=1)


def turn_rewards(batch: Batch) -> Tensor:
    """[N, K] what each turn was worth; what the episode's ``reward`` has beyond their sum (after shaping, or from a judge)
    counts to the last turn."""
    ends = turn_ends(batch)
    there = ends >= 0
    given = torch.zeros(ends.shape, dtype=batch.mask.dtype, device=ends.device)
    if batch.turn_reward is not None:
        given = torch.where(there, batch.turn_reward, given)
    last = there & (ends == ends.amax(1, keepdim=True))
    return given + last * (batch.total_reward() - given.sum(1))[:, None]


def on_turns(batch: Batch) -> Batch:
    """The batch with the reward of each turn on the last token of that turn, as a token reward, in the place of the whole on the last
    token of the episode. Token rewards that are there (a KL penalty) stay where they are; ``reward`` is 0 then."""
    placed = at_ends(batch, turn_rewards(batch.replace(token_reward=None)))
    there = 0.0 if batch.token_reward is None else masked(batch.token_reward, batch.mask)
    return batch.replace(reward=torch.zeros_like(batch.reward), token_reward=placed + there)


def episode_of(batch: Batch) -> Tensor:
    """[N] a number for each episode of each prompt, where episodes are several rows."""
    keys = torch.stack([batch.group, batch.episode.to(batch.group)], 1)
    return torch.unique(keys, dim=0, return_inverse=True)[1]


def turn_numbers(batch: Batch, name: str) -> Tensor:
    """[N, K] what the environment counted under a name in each turn (``turn_number[NAME]``); 0 where it counted nothing."""
    said = batch.members("turn_number").get(name)
    return torch.zeros_like(turn_rewards(batch)) if said is None else said


def to_go(x: Tensor, gamma: float) -> Tensor:
    r"""[N, K] of numbers of turns what is still to come, :math:`\sum_{k' \ge k} \gamma^{k'-k} x_{k'}`."""
    found, after = torch.empty_like(x), torch.zeros_like(x[:, 0])
    for k in range(x.shape[1] - 1, -1, -1):
        after = x[:, k] + gamma * after
        found[:, k] = after
    return found
