"""The engine of one process: it samples, scores and updates."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from policyopt.capability import CAPABILITIES
from policyopt.engine.local.known import open_known
from policyopt.engine.local.noise import measured
from policyopt.engine.local.optimizers import hidden_matrices
from policyopt.engine.local.roles import Follower, fill_roles, here, rest
from policyopt.engine.local.sampler import LocalSampler
from policyopt.engine.local.weights import Weights
from policyopt.engine.plan import UpdateReport, accumulate
from policyopt.engine.protocol import Drawing, Size, at_once
from policyopt.engine.settings import OptimizerName
from policyopt.engine.shards import SHARDS, placed, read_shards
from policyopt.errors import UserError
from policyopt.models.critic import ValueModel
from policyopt.models.likelihood import LOGP, Leaves, Likelihood, Stepwise, Wanted, Weigh
from policyopt.models.load import Policy
from policyopt.models.text import Text
from policyopt.models.together import group_statistics
from policyopt.parts.statistic.group import apart
from policyopt.recipe import Recipe
from policyopt.rows import FIXED, Batch, behind, make_batch
from policyopt.schema import member
from policyopt.sources.program import Rollout
from policyopt.spans import span

X = TypeVar("X")

TENSORS = "engine.safetensors"
"""What a checkpoint holds of this engine."""


class LocalEngine:
    """An :class:`~policyopt.engine.protocol.Engine` whose models are in this process, on a CPU or a GPU.

    ``roles`` holds the models that are given for the roles that the recipe reads; what it does not read is never made.
    ``optimizer`` moves the parameters (:mod:`policyopt.engine.local.optimizers`); ``lr`` is the learning rate of the policy,
    ``critic_lr`` that of the critic (ten times as much where it is unset); ``micro_batch`` the rows of a forward pass (as
    many as fit in 16,384 tokens where it is unset); with ``offload`` the models beside the policy are on its device only while
    they are read; ``sampler`` makes what draws from the policy in the place of its own; ``keep`` is a folder in which stays what
    models that do not move think of given texts (:mod:`policyopt.engine.local.known`). Raises
    :class:`~policyopt.errors.UserError` for a role that cannot be filled.
    """

    capabilities = frozenset(CAPABILITIES)

    def __init__(
        self, policy: Policy, recipe: Recipe, roles: Mapping[str, Policy] | None = None, *, lr: float = 1e-6,
        critic_lr: float | None = None,
        optimizer: OptimizerName = "adamw", betas: tuple[float, float] = (0.9, 0.99), eps: float = 1e-8,
        weight_decay: float = 0.0, clip_norm: float = 1.0, micro_batch: int | None = None,
        offload: bool = False, sampler: Callable[[Policy, Stepwise], Drawing] | None = None, keep: Path | None = None,
    ) -> None:  # fmt: skip
        self.policy, self.clip_norm, self.micro_batch = policy, clip_norm, micro_batch
        self.device = next(policy.model.parameters()).device
        self.dtype = torch.float64 if policy.model.dtype == torch.float64 else torch.float32
        """16-bit models give float32 columns."""
        stepwise = policy.likelihood(lambda: self.version)
        self.likelihood: Likelihood = stepwise
        self._stepwise, self._sampler = stepwise, sampler
        self.replay = recipe.source.routing_replay if isinstance(recipe.source, Rollout) else "no"
        self._routers = None if self.replay == "no" else stepwise.routers
        self.roles = fill_roles(policy, recipe, roles or {})
        self.critic = None
        if recipe.critic is not None:
            self.critic = ValueModel(policy.backbone(), policy.chunks, lambda: self.version)
        moving = {"previous"} | ({"reference"} if recipe.reference.moves else set())
        still = {name: role for name, role in self.roles.items() if name not in moving}
        self._known = {} if recipe.source.services else open_known(keep, still, self.dtype)  # what is drawn is new
        self._settle(recipe)
        if offload:
            rest(self.roles, policy, recipe.sampled_roles)
        self.samplers = {name: self._sampler_of(name) for name in sorted(recipe.sampled_roles)}
        self.version = 0
        self.passes: Counter[tuple[str, bool]] = Counter()
        trained = {"policy": dict(policy.trainable())}
        if self.critic is not None:
            trained["critic"] = dict(self.critic.named_parameters())
        rates = {"policy": lr, "critic": critic_lr or 10 * lr}
        models = {"policy": policy.model, "critic": self.critic}
        self.weights = Weights(
            trained, rates, betas=betas, eps=eps, weight_decay=weight_decay, optimizer=optimizer,
            matrices={role: hidden_matrices(models[role]) for role in trained},
        )  # fmt: skip
        self._followers = {
            name: Follower(name, role, policy, self.weights.masters["policy"])
            for name, role in self.roles.items()
            if name in moving
        }
        self.start = {n: p.clone() for n, p in self.parameters().items()} if recipe.probes else {}

    def _settle(self, recipe: Recipe) -> None:
        """Put the models where they stay, before anything is made of their parameters: here they stay as they came."""

    @property
    def text(self) -> Text:
        """From text to the policy's tokens and back."""
        return self.policy.text

    @property
    def vocab(self) -> int:
        """How many tokens the policy chooses from."""
        return self._stepwise.vocab

    @property
    def context(self) -> int:
        """How many tokens the policy reads at most, prompt and response together."""
        return self.policy.context

    @cached_property
    def sampler(self) -> Drawing:
        """Draws from the policy; made when somebody first does."""
        sampler: Drawing
        if self._sampler is None:
            routers = self._routers if self.replay == "sampler" else None
            sampler = LocalSampler(self._stepwise, self.policy.eos, self.device, stops=self.text.stops, routers=routers)
        else:
            sampler = self._sampler(self.policy, self._stepwise)
        sampler.version = self.version
        return sampler

    def _move_to(self, version: int) -> None:
        """Say that the weights are those of a version; what the sampler holds of older ones it forgets."""
        self.version = version
        if "sampler" in self.__dict__:
            self.sampler.version = version

    def _sampler_of(self, name: str) -> LocalSampler:
        role = self.roles[name]
        if role.model is self.policy.model:
            raise UserError(
                f"a rollout program draws from the {name}, but with --lora that is the policy without its adapters, which "
                f"cannot be drawn from beside it: name a model of its own with --role {name}=PATH, or train without --lora"
            )
        with role as likelihood:
            return LocalSampler(likelihood, self.policy.eos, self.device, stops=self.text.stops)

    def ahead(self, draw: Callable[[], X]) -> Callable[[], X]:
        """Draw at once: there is one process."""
        return at_once(draw)

    # Annotating -------------------------------------------------------------------------------------------------------

    @span("annotate")
    @torch.no_grad()
    def annotate(self, batch: Batch, recipe: Recipe) -> Batch:
        """See :class:`~policyopt.engine.protocol.Engine`."""
        if self.replay == "trainer":
            batch = batch.replace(routes=self._routes(batch))
        for name in self.roles:
            if name != "previous" and member("logp_of", name) in recipe.needs:
                batch = batch.replace(**{member("logp_of", name): self._still(batch, name)})
        for look in recipe.looks:
            batch = batch.replace(**{look.column: self._logp(behind(batch, look), look.role)})
        again, (single, grouped) = "rollout_logp" in recipe.needs, apart(recipe.fixed)
        if again or single:
            wanted = Wanted(statistics=single)
            with here(self.roles, wanted.roles):
                leaves = self._by_rows(batch, lambda b: self._policy(b, wanted))
            logp = leaves.pop("logp")
            batch = batch.with_statistics({FIXED + key: x for key, x in leaves.items()})
            batch = batch.replace(rollout_logp=batch.old_logp, old_logp=logp) if again else batch
        if grouped:
            self._count("policy", batch)
            found = group_statistics(self._stepwise, batch, grouped, self._pieces)
            batch = batch.with_statistics({FIXED + key: x for key, x in found.items()})
        return batch

    @span("prepare")
    @torch.no_grad()
    def prepare(self, batch: Batch, recipe: Recipe) -> Batch:
        """See :class:`~policyopt.engine.protocol.Engine`."""
        if "prox_logp" in recipe.needs:
            batch = batch.replace(prox_logp=self._logp(batch, "policy"))
        if "prev_logp" in recipe.needs:
            batch = batch.replace(prev_logp=self._logp(batch, "previous"))
        if self.critic is not None:
            batch = batch.replace(old_value=self._by_rows(batch, lambda b: {"value": self._values(b)})["value"])
        return batch

    @torch.no_grad()
    def values(self, states: Sequence[Sequence[int]]) -> list[float]:
        """What the critic thinks of texts, given as ids. Raises :class:`~policyopt.errors.UserError` without a critic."""
        if self.critic is None:
            raise UserError("the rollout asks for values, but there is no critic: set recipe.critic")
        critic = self.critic
        ids = nn.utils.rnn.pad_sequence([torch.tensor(s, device=self.device) for s in states], batch_first=True)
        length = torch.tensor([len(s) for s in states], device=self.device)
        nothing = torch.zeros(len(ids), 1, dtype=self.dtype, device=self.device)
        texts = make_batch(mask=nothing, prompt=ids, prompt_mask=_first(length, ids.shape[1]))

        def after(piece: Batch) -> Leaves:
            length = piece.prompt_mask.sum(1)
            return {"value": critic.after(piece.prompt[:, : int(length.max())], length)[:, None]}

        return self._by_rows(texts, after)["value"][:, 0].tolist()

    def _routes(self, batch: Batch) -> Tensor:
        """[N, R] the experts that the policy sends the tokens of a batch to."""
        found: dict[int, Tensor] = {}
        for rows in self._pieces(batch):
            self._count("policy", batch[rows])
            found |= zip(rows.tolist(), self._stepwise.choices(batch[rows]), strict=True)
        return nn.utils.rnn.pad_sequence([found[i] for i in range(len(batch))], batch_first=True)

    def _still(self, batch: Batch, role: str) -> Tensor:
        """[N, T] what a role that does not move thinks of a batch; texts that it has met before are not passed again."""
        known = self._known.get(role)
        return self._logp(batch, role) if known is None else known(batch, lambda rows: self._logp(rows, role))

    def _logp(self, batch: Batch, role: str) -> Tensor:
        """[N, T] what a role, or the policy as it is, thinks of a batch."""
        if role == "policy":
            return self._by_rows(batch, lambda b: self._policy(b, LOGP))["logp"]

        def annotated(piece: Batch) -> Leaves:
            with span(role), self.roles[role] as likelihood:
                self._count(role, piece)
                return likelihood.leaves(piece)

        with here(self.roles, {role}):
            return self._by_rows(batch, annotated)["logp"]

    def _policy(self, batch: Batch, wanted: Wanted) -> Leaves:
        for role in ("policy", *(wanted.roles & self.roles.keys())):
            self._count(role, batch)
        return self.likelihood.leaves(batch, wanted, self.roles)

    @span("critic")
    def _values(self, batch: Batch) -> Tensor:
        assert self.critic is not None
        self._count("critic", batch)
        values: Tensor = self.critic(batch)
        return values

    def _count(self, role: str, batch: Batch) -> None:
        learns = torch.is_grad_enabled() and role in self.weights.parameters
        self.passes[role, learns] += int(batch.mask.sum())

    def _by_rows(self, batch: Batch, f: Callable[[Batch], Leaves]) -> Leaves:
        out: Leaves = {}
        for rows in self._pieces(batch):
            for name, values in f(batch[rows]).items():
                out.setdefault(name, torch.zeros_like(batch.mask))[rows] = values.to(batch.mask)
        return out

    def _pieces(self, batch: Batch) -> Iterator[Tensor]:
        """Row numbers of the micro-batches."""
        for rows in self._stepwise.pieces(batch, self.micro_batch):
            yield torch.tensor(rows, device=batch.mask.device)

    # Updating ------------------------------------------------------------------------------------------------------

    def gradient(self, recipe: Recipe, batch: Batch) -> UpdateReport:
        """Put the gradient of the objective on a mini-batch into ``.grad``; see :func:`~policyopt.engine.plan.accumulate`."""
        self.weights.zero_grad()
        wanted = Wanted("entropy" in recipe.needs, recipe.live)

        def leaves(piece: Batch) -> Leaves:
            out = self._policy(piece, wanted)
            return out if self.critic is None else out | {"value": self._values(piece)}

        learn = partial(self._learn, wanted=wanted)
        with here(self.roles, wanted.roles):
            return self._accumulated(recipe, batch, torch.no_grad()(leaves), learn)

    def _accumulated(
        self, recipe: Recipe, batch: Batch, leaves: Callable[[Batch], Leaves], learn: Callable[[Batch, Weigh], None],
        split: bool = False,
    ) -> UpdateReport:  # fmt: skip
        """Carry out the plan on the pieces of a batch, whose rows may be ``split`` over processes."""
        whole = partial(self._by_rows, f=leaves)
        carry_out = partial(accumulate, recipe, batch, version=self.version, whole=whole, split=split)
        if "gradient noise" not in recipe.asks:
            return carry_out(list(self._pieces(batch)), learn=learn)
        return measured(self.weights.parameters["policy"].values(), batch, self._pieces, learn, carry_out)

    def _learn(self, piece: Batch, weigh: Weigh, wanted: Wanted) -> None:
        """Pass a piece of a batch through the policy and the critic, and back."""
        values = None if self.critic is None else self._values(piece)
        by_value = None if values is None else torch.zeros_like(values)

        def weighed(leaves: Leaves, rows: Tensor | None = None, within: Tensor | None = None) -> Mapping[str, Tensor]:
            if values is None or by_value is None:
                return weigh(leaves, rows, within)
            gradients = weigh(leaves | {"value": values.detach()[rows]}, rows, within)
            by_value[rows] += gradients["value"].to(by_value)
            return gradients

        for role in ("policy", *(wanted.roles & self.roles.keys())):
            self._count(role, piece)
        ends = [self.likelihood.weighed(piece, replace(weigh, gradients=weighed), wanted, self.roles)]
        ends += [] if values is None or by_value is None else [(values, by_value)]
        with span("backward"):
            for end, gradient in ends:
                if end.requires_grad:
                    end.backward(gradient)

    @span("update")
    def update(self, recipe: Recipe, batch: Batch) -> UpdateReport:
        """One optimiser step on a mini-batch. Nothing changes where the loss or a gradient is not finite."""
        report = self.gradient(recipe, batch)
        report.grad_norm, report.applied = self.weights.step(self.clip_norm, finite=math.isfinite(report.loss))
        if report.applied:
            self._move_to(self.version + 1)
        return report

    @span("follow")
    def follow(self, fraction: float, role: str = "reference") -> None:
        """Move a role by a fraction of its way towards the policy."""
        if role in self._followers:
            self._followers[role].follow(fraction)

    @property
    def lr(self) -> float:
        """The learning rate of the policy now."""
        return self.weights.lr

    def set_lr(self, factor: float) -> None:
        """Put the learning rates at ``factor`` times their base."""
        self.weights.set_lr(factor)

    @span("metrics")
    def update_size(self) -> float:
        """See :meth:`~policyopt.engine.local.weights.Weights.update_size`."""
        return self.weights.update_size()

    # State ---------------------------------------------------------------------------------------------------------

    def parameters(self) -> dict[str, Tensor]:
        """What is trained of the policy, by name, in the precision that the optimiser moves it in."""
        return {name: p.detach() for name, p in self.weights.masters["policy"].items()}

    def write(self, folder: Path) -> None:
        """Write :meth:`tensors` into a folder."""
        self._keep()
        save_file({name: x.detach().cpu().contiguous() for name, x in self.tensors().items()}, folder / TENSORS)

    def read(self, folder: Path, version: int) -> None:
        """Put back what :meth:`write` wrote, on this engine or on one whose models are spread over ranks. Raises ``KeyError``
        for a tensor that is missing or of another shape."""
        like = self.weights.like() | self.tensors()
        if (folder / SHARDS).is_dir():
            self.load_tensors(read_shards(folder / SHARDS, like), version)
        else:
            found = load_file(folder / TENSORS) if (folder / TENSORS).is_file() else {}
            self.load_tensors(placed(found, like), version)

    def _keep(self) -> None:
        """Put on the disk what models that do not move have said: a run that goes on from here reads the same bits."""
        for known in self._known.values():
            known.write()

    def close(self) -> None:
        """Let go of what draws."""
        self._keep()
        if "sampler" in self.__dict__:
            self.sampler.close()

    def tensors(self) -> dict[str, Tensor]:
        """Everything that training changes, by name: parameters, what the optimisers keep, roles that move."""
        out = self.weights.tensors()
        for follower in self._followers.values():
            out |= follower.tensors()
        return out

    def load_tensors(self, tensors: dict[str, Tensor], version: int) -> None:
        """Put back what :meth:`tensors` gave. Raises ``KeyError`` for a tensor that is missing or of another shape."""
        self.weights.load_tensors(tensors)
        for follower in self._followers.values():
            follower.load_tensors(tensors)
        self._move_to(version)

    def size(self) -> Size:
        """What a checkpoint (parameters, and what the optimiser keeps) and the model take on the disk."""
        model = sum(p.numel() * p.element_size() for p in self.policy.model.parameters())
        return Size(self.weights.saved_bytes(), model)

    def save(self, folder: Path) -> None:
        """Write the policy as a folder; see :meth:`~policyopt.models.load.Policy.save`."""
        self.policy.save(folder)


def _first(length: Tensor, width: int) -> Tensor:
    """[N, width] 1 on the first so many places of each row."""
    return (torch.arange(width, device=length.device) < length[:, None]).long()
