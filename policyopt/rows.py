"""The batch: one row per response. Every part is a function of these columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from tensordict import TensorClass, TensorDict
from torch import Tensor

from policyopt.errors import UserError

if TYPE_CHECKING:  # which columns are there depends on the recipe, which types cannot say
    Column = Any
    _Columns = TensorClass
else:
    Column = Tensor | None
    _Columns = TensorClass["nocast"]


class Batch(_Columns):
    """Responses of one step, right-padded to a common length T. N rows, P prompt positions.

    A column that a recipe does not need is ``None``. Floating columns share one dtype (float32 in training,
    float64 in gradient tests). Padding may hold anything, NaN too; parts cut it off by ``mask`` and never read it.
    """

    # What was drawn
    mask: Tensor
    """[N, T] 1 on tokens that the policy wrote, 0 on padding (and on text that others wrote)."""
    present: Column = None
    """[N, T] 1 on every token of the response, those that others wrote too; ``None`` where all are the policy's own."""
    guided: Column = None
    """[N, T] 1 on the tokens of ``mask`` that a guide wrote in the policy's place: all models say what they think of
    them, and the policy does not learn from them; ``None`` where there are none."""
    tokens: Column = None
    """[N, T] ids of the response, end token included."""
    prompt: Column = None
    """[N, P] ids of the prompt, right-padded."""
    prompt_mask: Column = None
    """[N, P] 1 on prompt tokens."""
    group: Column = None
    """[N] which prompt of the batch a row answers; rows of one prompt share the number."""
    truncated: Column = None
    """[N] 1 where the response hit the token budget before its end token."""
    budget: Column = None
    """[N] how many tokens the response was allowed."""
    version: Column = None
    """[N] number of the policy (updates so far) that wrote the row."""
    age: Column = None
    """[N] at how many steps before this one the row was in the batch, where batches are trained on again; ``None``
    where all are new."""
    new_from: Column = None
    """[N] index of the first token that no update has been made on, where responses are generated in pieces."""
    thought: Column = None
    """[N] which of its prompt's thoughts a row holds, or answers from."""
    cut: Column = None
    """[N] index of the token before which the row's thought was cut to force an answer; -1 where it was not."""
    true_length: Column = None
    """[N] true length in tokens where it differs from ``mask.sum(-1)``; read it through :meth:`length`."""
    turn: Column = None
    """[N] number of the environment turn that the row is, from 0."""
    node: Column = None
    """[N, D] the nodes that the row passes in the tree of its prompt's responses, from the root's child to its leaf;
    numbers from 1 on that mean something within the prompt alone, 0 where the row passes no more. Rows that share the
    beginning of their text share its nodes. ``None`` where all responses are independent."""
    node_end: Column = None
    """[N, D] how many tokens of the row lie before the end of each of its nodes."""
    node_value: Column = None
    """[N, D] mean reward of fresh continuations from the end of each node, NaN where none were drawn."""
    source: Column = None
    """[N] which of the rollout's programs drew the row: 0 the main one, 1 and up auxiliary ones."""
    temperature: Column = None
    """[N], or [N, T] where it changes from token to token: sampling temperature; all log-probabilities are taken at
    it."""

    sampled_entropy: Column = None
    """[N, T] entropy in nats of the distribution that each token was drawn from, as the sampler saw it."""

    noise: Column = None
    """[N, T] random numbers in [0, 1) that came with the tokens, for parts that draw some of them."""

    # What it was worth
    reward: Column = None
    """[N] score of the response, after shaping."""
    correct: Column = None
    """[N] 1 where the judge called the answer right; shaping never changes it."""
    formatted: Column = None
    """[N] 1 where the judge found the answer in the form that the task asks for."""
    consistency: Column = None
    """[N] how far the answer follows from the reasoning before it, 1 to -1, where a judge says so."""
    components: Column = None
    """What each of several judges says, a TensorDict of [N] by name; read it with :meth:`component`."""
    pass_rate: Column = None
    """[N] share of right answers among what the rollout's main program drew for the row's prompt, rows that a filter has
    dropped since included."""
    history: Column = None
    """[N, S] what the recipe's memory holds of the row's prompt from earlier steps; NaN where it is new."""
    baseline_reward: Column = None
    """[N] reward to compare with: of the greedy response to the same prompt, or the mean over all that the rollout drew
    for it, rows that are not trained on too."""
    token_reward: Column = None
    """[N, T] reward that falls on single tokens (a KL penalty); ``reward`` comes on top, on the last token."""
    step_reward: Column = None
    """[N, K] rewards of the K steps of a response (process supervision)."""
    step_end: Column = None
    """[N, K] index of each step's last token, -1 where a response has fewer steps. Where a part asks for it and nobody has
    judged steps, these are the lines of the response."""
    advantage: Column = None
    """[N, T] how much better than expected each token was."""
    returns: Column = None
    """[N, T] what the critic should have predicted."""

    # What the models think of it
    old_logp: Column = None
    """[N, T] log-probability of each token under the policy that wrote it, at the temperature it was sampled with."""
    rollout_logp: Column = None
    """[N, T] what the sampler said, where ``old_logp`` is the trainer's own number for the same weights; ``None`` where
    the two are one."""
    prox_logp: Column = None
    """[N, T] the same tokens under the policy just before its first update on the batch (with stale or replayed batches
    another one than the policy that wrote them)."""
    ref_logp: Column = None
    """[N, T] the same tokens under the reference."""
    prev_logp: Column = None
    """[N, T] the same tokens under the policy of one step before, as it stood before its updates."""
    teacher_logp: Column = None
    """[N, T] the same tokens under the teacher."""
    old_value: Column = None
    """[N, T] the critic's prediction when the batch was drawn."""

    # Filled while the objective runs: the leaves that carry the gradient
    logp: Column = None
    """[N, T] log-probability of each token under the policy being trained."""
    entropy: Column = None
    """[N, T] entropy in nats of the policy's distribution at each token."""
    value: Column = None
    """[N, T] the critic's prediction now."""
    share: Column = None
    """[N, T] the weight of each token in the aggregation, made on the whole mini-batch before it is split."""
    statistics: Column = None
    """Numbers per token from whole next-token distributions, a TensorDict of [N, T] by key; read them with
    :meth:`stat` and :meth:`scored`."""

    def stat(self, statistic: Any) -> Tensor:
        """[N, T] a statistic of the policy being trained, with its gradient."""
        return self.statistics[statistic.key]

    def scored(self, statistic: Any) -> Tensor:
        """[N, T] a statistic as it was when the batch was scored, without gradient."""
        return self.statistics[SCORED + statistic.key]

    def component(self, name: str) -> Tensor:
        """[N] what one of several judges says; "correct" and "formatted" are the verdict's own, whoever judges.

        Raises :class:`~policyopt.errors.UserError` for a name that the judge does not give.
        """
        known = {} if self.components is None else dict(self.components.items())
        if name in known:
            return known[name]
        if name not in ("correct", "formatted"):
            has = ", ".join(["correct", "formatted", *known])
            raise UserError(
                f"the judge says nothing called {name!r}; it has {has}: name one of these, or take a judge with {name!r} among its parts"
            )
        return getattr(self, name)

    def with_statistics(self, found: Mapping[str, Tensor]) -> Batch:
        """The batch with further statistics by key."""
        if not found:
            return self
        old = {} if self.statistics is None else dict(self.statistics.items())
        return self.replace(statistics=TensorDict({**old, **found}, batch_size=self.batch_size))

    def with_leaves(self, leaves: Mapping[str, Tensor]) -> Batch:
        """The batch with leaves in their place: those with the name of a column there, the others as statistics."""
        columns = {name: x for name, x in leaves.items() if name in TOKEN_COLUMNS}
        rest = {name: x for name, x in leaves.items() if name not in TOKEN_COLUMNS}
        return self.replace(**columns).with_statistics(rest)

    def length(self) -> Tensor:
        """[N] number of response tokens, in the dtype of ``mask``."""
        return self.mask.sum(-1) if self.true_length is None else self.true_length

    def own(self) -> Tensor:
        """[N, T] 1 on the tokens of ``mask`` that the policy wrote itself."""
        return self.mask if self.guided is None else masked(1 - self.guided, self.mask)

    def terminal(self) -> Tensor:
        """[N, T] 1 on the last token of each row, 0 elsewhere (a row without tokens has none)."""
        later = self.mask.flip(-1).cumsum(-1).flip(-1)
        return self.mask * (later == 1)

    def total_reward(self) -> Tensor:
        """[N] ``reward`` plus the sum of the token rewards of the row."""
        if self.token_reward is None:
            return self.reward
        return self.reward + masked(self.token_reward, self.mask).sum(-1)


SCORED = "scored:"
"""Prefix of the keys of statistics that were taken when the batch was scored."""

TOKEN_COLUMNS = (
    "guided", "sampled_entropy", "token_reward", "advantage", "returns", "old_logp", "rollout_logp", "prox_logp", "ref_logp",
    "prev_logp", "teacher_logp", "noise", "old_value", "logp", "entropy", "value", "share",
)  # fmt: skip
"""The floating columns of shape [N, T]."""


STATISTICS = "statistics/"
"""Prefix of statistics among the columns of :func:`columns_of` and :func:`make_batch`."""
COMPONENTS = "components/"
"""Prefix of what single judges say among them."""


def make_batch(**columns: Tensor) -> Batch:
    """A :class:`Batch` from its columns, with the number of rows read off ``mask`` and zeros put on the padding."""
    mask = columns["mask"]
    statistics = {k.removeprefix(STATISTICS): masked(x, mask) for k, x in columns.items() if k.startswith(STATISTICS)}
    components = {k.removeprefix(COMPONENTS): x for k, x in columns.items() if k.startswith(COMPONENTS)}
    plain = {name: x for name, x in columns.items() if not name.startswith((STATISTICS, COMPONENTS))}
    clean = {name: masked(plain[name], mask) for name in TOKEN_COLUMNS if plain.get(name) is not None}
    fields: dict[str, Any] = {**plain, **clean, "batch_size": [mask.shape[0]]}
    if components:
        fields["components"] = TensorDict(components, batch_size=[mask.shape[0]])
    return Batch(**fields).with_statistics(statistics)


def columns_of(batch: Batch) -> dict[str, Tensor]:
    """The columns that a batch has, by name; :func:`make_batch` reads them back."""
    found = dict(batch.to_dict(retain_none=False))
    nested = {prefix: found.pop(prefix[:-1], None) or {} for prefix in (STATISTICS, COMPONENTS)}
    return {name: x for name, x in found.items() if isinstance(x, Tensor)} | {
        prefix + key: x for prefix, several in nested.items() for key, x in several.items()
    }


def masked(x: Tensor, mask: Tensor) -> Tensor:
    """``x`` where ``mask`` is 1, else 0, whatever stood there (a product with the mask would keep NaN and infinity)."""
    return torch.where(mask.bool(), x, torch.zeros((), dtype=x.dtype, device=x.device))


def masked_mean(x: Tensor, mask: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Mean of ``x`` over the places where ``mask`` is 1; 0 where there is none."""
    kept = masked(x, mask)
    if dim is None:
        return kept.sum() / mask.sum().clamp(min=1)
    return kept.sum(dim, keepdim=keepdim) / mask.sum(dim, keepdim=keepdim).clamp(min=1)
