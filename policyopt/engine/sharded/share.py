"""The local engine with its models spread over ranks: each rank has its share of rows, weights, gradients and moments."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from policyopt.engine.local import LocalEngine, LocalSampler
from policyopt.engine.plan import UpdateReport, added
from policyopt.engine.programs import carried_out
from policyopt.engine.sent import Asked
from policyopt.engine.sharded.shard import Called, Plain, Root, let_go, read_through, spread, whole
from policyopt.engine.shards import SHARDS, write_shards
from policyopt.errors import UserError
from policyopt.models.causal import SplitModel, split_model
from policyopt.models.likelihood import LOGP, Leaves, Likelihood, Others, Wanted, Weigh
from policyopt.recipe import Recipe
from policyopt.rows import Batch
from policyopt.sources.program import Response


@dataclass(frozen=True)
class Through:
    """A likelihood whose every pass is one pass through its root, with gradient."""

    root: Root
    likelihood: Likelihood

    def leaves(self, batch: Batch, wanted: Wanted = LOGP, others: Others | None = None) -> Leaves:
        """See :class:`~policyopt.models.likelihood.Likelihood`."""
        found: Leaves = self.root(self.likelihood.leaves, batch, wanted, others)
        return found

    def weighed(
        self, batch: Batch, weigh: Weigh, wanted: Wanted = LOGP, others: Others | None = None
    ) -> tuple[Tensor, Tensor]:
        """See :class:`~policyopt.models.likelihood.Likelihood`."""
        found: tuple[Tensor, Tensor] = self.root(self._anchored, batch, weigh, wanted, others)
        return found

    def _anchored(self, *asked: Any) -> tuple[Tensor, Tensor]:
        """What gradient the head has found is taken up by the ranks when a way back reaches the root, which therefore there has
        to be, though the head alone may learn."""
        end, gradient = self.likelihood.weighed(*asked)
        learning = (p for p in self.root.parameters() if p.requires_grad)
        return end if end.requires_grad else end + 0 * next(learning).sum(), gradient


class ShareEngine(LocalEngine):
    """What one rank of the default process group does of a :class:`~policyopt.engine.local.engine.LocalEngine`'s work.

    All ranks call the same methods at the same time, with the same batches. Rows are dealt to ranks; each rank passes its own
    and all make the same number of passes, since weights are gathered in each (a rank that has fewer passes a row again, with
    a gradient of zero). What is found for rows is brought together, so every rank gets the whole, and of an update the
    report on the whole mini-batch. Raises :class:`~policyopt.errors.UserError` for what cannot be spread.
    """

    def _settle(self, recipe: Recipe) -> None:
        """Spread policy, roles and critic."""
        self._rank, self._ranks = dist.get_rank(), dist.get_world_size()
        mesh, policy, split = init_device_mesh(self.device.type, (self._ranks,)), self.policy, self._stepwise
        assert isinstance(split, SplitModel)
        refuse(policy, split, [name for name, role in self.roles.items() if role.model is policy.model])
        self._plain: dict[str | None, Plain] = {None: Plain(policy.model)}
        self._plain |= {name: Plain(self.roles[name].model) for name in sorted(recipe.sampled_roles)}
        self._drawing: dict[str | None, LocalSampler] = {}
        root = spread(policy.model, mesh)
        self.likelihood = Through(root, split)
        self._roots = [root]
        for _, role in sorted(self.roles.items()):
            if role.model is not policy.model:
                self._roots.append(spread(role.model, mesh))
            role.split = read_through(root if role.model is policy.model else self._roots[-1], role.split)
        if self.critic is not None:
            self._roots.append(spread(self.critic, mesh))
            called: Any = Called(self._roots[-1], self.critic)
            called.after = Called(self._roots[-1], self.critic.after)
            self.critic = called

    # Rows ----------------------------------------------------------------------------------------------------------

    def _deal(self, batch: Batch) -> list[list[Tensor]]:
        """The micro-batches of each rank: rows that follow each other, so that groups stay together, about as many tokens for
        each rank."""
        length = (batch.mask.sum(1) + batch.prompt_mask.sum(1)).double()
        end = length.cumsum(0)
        owner = ((end - length / 2) * self._ranks / end[-1]).long().clamp(max=self._ranks - 1)
        mine = [(owner == rank).nonzero()[:, 0] for rank in range(self._ranks)]
        return [[rows[p] for p in super(ShareEngine, self)._pieces(batch[rows])] if len(rows) else [] for rows in mine]

    def _pieces(self, batch: Batch) -> Iterator[Tensor]:
        yield from self._deal(batch)[self._rank]

    def _spare(self, batch: Batch) -> Iterator[Batch]:
        """A row of the batch for each pass that others make and this rank does not."""
        passes = [len(pieces) for pieces in self._deal(batch)]
        row = (batch.mask.sum(1) + batch.prompt_mask.sum(1)).argmin()[None]
        counted = self.passes.copy()
        for _ in range(max(passes) - passes[self._rank]):
            yield batch[row]
            self.passes = counted.copy()

    def _by_rows(self, batch: Batch, f: Callable[[Batch], Leaves]) -> Leaves:
        out = super()._by_rows(batch, f)
        for row in self._spare(batch):
            for name in f(row):
                out.setdefault(name, torch.zeros_like(batch.mask))
        for x in out.values():
            dist.all_reduce(x)
        return out

    def _apart(self) -> None:
        """Let go of what was gathered for the passes of a call: the weights may be others at the next."""
        for root in self._roots:
            let_go(root)

    # Scoring and updating ------------------------------------------------------------------------------------------

    def annotate(self, batch: Batch, recipe: Recipe) -> Batch:
        """See :class:`~policyopt.engine.protocol.Engine`."""
        found = super().annotate(batch, recipe)
        self._apart()
        return found

    def prepare(self, batch: Batch, recipe: Recipe) -> Batch:
        """See :class:`~policyopt.engine.protocol.Engine`."""
        found = super().prepare(batch, recipe)
        self._apart()
        return found

    def values(self, states: Sequence[Sequence[int]]) -> list[float]:
        """See :class:`~policyopt.engine.protocol.Engine`."""
        found = super().values(states)
        self._apart()
        return found

    def gradient(self, recipe: Recipe, batch: Batch) -> UpdateReport:
        """Put this rank's share of the gradient into ``.grad``."""
        self._release()
        report = super().gradient(recipe, batch)
        self._apart()
        return report

    def _accumulated(
        self, recipe: Recipe, batch: Batch, leaves: Callable[[Batch], Leaves], learn: Callable[[Batch, Weigh], None],
        split: bool = False,
    ) -> UpdateReport:  # fmt: skip
        report = super()._accumulated(recipe, batch, leaves, learn, split=self._ranks > 1)
        for row in self._spare(batch):
            learn(row, Weigh(lambda found, *some: {name: torch.zeros_like(x) for name, x in found.items()}))
        return self._merged(report, coupled=bool(recipe.gathers))

    def _learn(self, piece: Batch, weigh: Weigh, wanted: Wanted) -> None:
        # FSDP takes the mean over ranks, and the objective is a sum over rows.
        def weighed(leaves: Leaves, *some: Tensor | None) -> Mapping[str, Tensor]:
            return {name: g * self._ranks for name, g in weigh(leaves, *some).items()}

        super()._learn(piece, dataclasses.replace(weigh, gradients=weighed), wanted)

    def _merged(self, report: UpdateReport, coupled: bool) -> UpdateReport:
        """The report on the whole mini-batch; where rows are ``coupled`` every rank has its sums."""
        dist.all_reduce(report.weight)
        every: list[Any] = [None] * self._ranks
        dist.all_gather_object(every, (report.loss, report.sums))
        if coupled and self._ranks > 1:
            return report
        loss, sums = added(every)
        return dataclasses.replace(report, loss=loss, sums=sums)

    def follow(self, fraction: float, role: str = "reference") -> None:
        """See :class:`~policyopt.engine.protocol.Engine`."""
        super().follow(fraction, role)
        if fraction and role in self._plain:
            self._plain[role].empty()

    # Drawing -------------------------------------------------------------------------------------------------------

    def _sampler_of(self, name: str) -> LocalSampler:
        if self.roles[name].model is self.policy.model:
            return super()._sampler_of(name)  # which says why not
        return self.sampler_of(name)

    def sampler_of(self, role: str | None) -> LocalSampler:
        """Draws from a role, or the policy (``None``), on this rank alone; the weights are gathered for it, once, until the next
        update."""
        plain = self._plain[role]
        if not plain.full:
            plain.fill()
        if role not in self._drawing:
            split = split_model(plain.model)
            stops = self.text.stops
            self._drawing[role] = LocalSampler(split, self.policy.eos, self.device, stops=stops)
        sampler = self._drawing[role]
        sampler.version = 0 if role else self.version
        return sampler

    def draw(self, role: str | None, asked: Sequence[Asked]) -> tuple[list[list[Response]], int, int]:
        """The responses to each request, how many tokens were computed for them and how many drawn."""
        sampler = self.sampler_of(role)
        before = sampler.computed, sampler.drawn
        found = carried_out([one.answered(sampler) for one in asked]) if asked else []
        return found, sampler.computed - before[0], sampler.drawn - before[1]

    def _release(self) -> None:
        """Let go of the weights that were gathered for drawing."""
        for role, plain in self._plain.items():
            if plain.full:
                plain.empty()
                self._drawing[role].forget()

    def _move_to(self, version: int) -> None:
        super()._move_to(version)
        self._release()

    # State ---------------------------------------------------------------------------------------------------------

    def parameters(self) -> dict[str, Tensor]:
        """What is trained of the policy, whole and on the CPU, on the first rank."""
        found = ((name, whole(p.detach())) for name, p in self.weights.masters["policy"].items())
        return {name: x.cpu() for name, x in found if self._rank == 0}

    def published(self) -> dict[str, Tensor]:
        """All weights of the policy, whole and on the CPU, in the precision that it computes in, on the first rank."""
        found = self._plain[None].gathered()
        return {name: x.cpu() for name, x in found if self._rank == 0}

    def write(self, folder: Path) -> None:
        """Write this rank's share of :meth:`tensors` into a folder that all ranks see."""
        write_shards(self.tensors(), folder / SHARDS)

    def save(self, folder: Path) -> None:
        """Write the policy as a folder, on the first rank."""
        weights = self.published()
        if weights:
            dataclasses.replace(self.policy, model=self._plain[None].with_weights(weights)).save(folder)


def refuse(policy: Any, split: SplitModel, within: Sequence[str]) -> None:
    """Raises :class:`~policyopt.errors.UserError` for a policy that cannot be spread over ranks; ``within`` are the roles that
    it plays itself, without its adapters."""
    if not split.pads:
        raise UserError(
            f"--model {policy.name}: its rows go through the model one by one, which ranks cannot do together: train it in one "
            "process"
        )
    if policy.begun and within:
        raise UserError(
            f"--model {policy.name}: the {within[0]} is the policy with its adapters as they were, which ranks do not keep: add "
            "the adapters to the model first (--adapters.save merged), or train it in one process"
        )
