"""The local engine: one process, CPU or GPU, that samples, scores and updates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from policyopt.engine.sampler import LocalSampler
from policyopt.errors import UserError
from policyopt.models.critic import Critic
from policyopt.models.load import Policy, Role
from policyopt.models.logprobs import response_columns, split_model
from policyopt.objective import token_gradients
from policyopt.parts import Frozen
from policyopt.recipe import Recipe
from policyopt.rows import SCORED, Batch, make_batch, masked

_MICRO_TOKENS = 16_384
_SHORT = (torch.bfloat16, torch.float16)


@dataclass
class UpdateReport:
    """What one optimiser step did."""

    loss: float
    grad_norm: float
    applied: bool
    """False where the loss or the gradient was not finite: nothing was changed."""
    weight: Tensor
    """[N, T] token weights w = -dL/dlogp of the mini-batch."""
    sums: dict[str, float] = field(default_factory=dict)
    """Sums over tokens of what the log wants to know, and ``tokens``; ``mismatch/max`` is a maximum."""


class LocalEngine:
    """The models of a run and the three things that are done with them.

    ``score`` and ``prepare`` fill in what the models think of a batch, ``gradient`` puts the gradient of a mini-batch
    into ``.grad``, ``update`` takes one optimiser step. The roles that a recipe does not need (reference, teacher,
    critic) are never made. Raises :class:`~policyopt.errors.UserError` for a role that cannot be filled.
    """

    def __init__(
        self, policy: Policy, recipe: Recipe, *, teacher: Policy | None = None, lr: float = 1e-6,
        critic_lr: float | None = None,
        betas: tuple[float, float] = (0.9, 0.99), eps: float = 1e-8, weight_decay: float = 0.0,
        clip_norm: float = 1.0, micro_batch: int | None = None,
    ) -> None:  # fmt: skip
        self.policy, self.clip_norm, self.micro_batch = policy, clip_norm, micro_batch
        self.device = next(policy.model.parameters()).device
        self.dtype = torch.float64 if policy.model.dtype == torch.float64 else torch.float32
        """Of all floating columns of a batch; 16-bit models give float32 columns."""
        self.split = split_model(policy.model)
        self.sampler = LocalSampler(self.split, policy.eos, self.device)
        self.roles: dict[str, Role] = {"reference": policy.reference()} if "reference" in recipe.roles else {}
        """Models beside the policy that are only read."""
        if "previous" in recipe.roles:
            self.roles["previous"] = policy.reference()
        if "teacher" in recipe.roles:
            if teacher is None:
                raise UserError("the recipe reads a teacher: name its model with --teacher")
            self.roles["teacher"] = teacher.teacher(policy)
        self.guide: LocalSampler | None = None
        """Draws from the teacher, where the rollout does."""
        if "teacher" in recipe.rollout.roles:
            with self.roles["teacher"] as split:
                self.guide = LocalSampler(split, policy.eos, self.device)
        self.critic = Critic(policy.backbone()) if recipe.critic is not None else None
        self.version = 0
        """Optimiser steps taken so far."""

        def adamw(parameters: list[nn.Parameter], rate: float) -> torch.optim.AdamW:
            return torch.optim.AdamW(parameters, lr=rate, betas=betas, eps=eps, weight_decay=weight_decay, fused=True)

        self._parameters = {"policy": dict(policy.trainable())}
        if self.critic is not None:
            self._parameters["critic"] = dict(self.critic.named_parameters())
        # 16 bits are too few to add a small step to a weight: such weights have a float32 copy that the optimiser moves.
        self._masters = {role: {n: _master(p) for n, p in named.items()} for role, named in self._parameters.items()}
        rates = {"policy": lr, "critic": critic_lr or 10 * lr}
        self.optimizers = {role: adamw(list(named.values()), rates[role]) for role, named in self._masters.items()}
        self._followers = {
            "reference": {} if isinstance(recipe.reference, Frozen) else self._moving("reference"),
            "previous": self._moving("previous"),
        }
        self.start = {n: p.clone() for n, p in self.parameters().items()} if recipe.probes else {}
        """The trained parameters before the first step, where a probe compares with them."""
        self._base_lr = {name: o.param_groups[0]["lr"] for name, o in self.optimizers.items()}

    def set_lr(self, factor: float) -> None:
        """Put the learning rates at ``factor`` times their base."""
        for name, optimizer in self.optimizers.items():
            optimizer.param_groups[0]["lr"] = self._base_lr[name] * factor

    # Scoring -------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def score(self, batch: Batch, recipe: Recipe) -> Batch:
        """A batch that was just drawn, with what the models think of it: ``ref_logp``, ``teacher_logp``, the
        policy's own ``old_logp`` where the sampler's is asked for beside it, and the scored statistics."""
        columns = {"reference": "ref_logp", "teacher": "teacher_logp"}
        for name, role in self.roles.items():
            if columns.get(name) in recipe.needs:
                with role as split:
                    found = self._by_rows(batch, partial(response_columns, split))
                batch = batch.replace(**{columns[name]: found["logp"]})
        again = "rollout_logp" in recipe.needs
        if again or recipe.scored:
            found = self._by_rows(
                batch, lambda b: response_columns(self.split, b, statistics=recipe.scored, roles=self.roles)
            )
            logp = found.pop("logp")
            batch = batch.with_statistics({SCORED + key: x for key, x in found.items()})
            batch = batch.replace(rollout_logp=batch.old_logp, old_logp=logp) if again else batch
        return batch

    @torch.no_grad()
    def prepare(self, batch: Batch, recipe: Recipe) -> Batch:
        """A batch that is about to be trained on, with what the policy, the policy of one step before and the critic
        think of it now: ``prox_logp``, ``prev_logp``, ``old_value``."""
        if "prox_logp" in recipe.needs:
            batch = batch.replace(prox_logp=self._by_rows(batch, lambda b: response_columns(self.split, b))["logp"])
        if "prev_logp" in recipe.needs:
            with self.roles["previous"] as split:
                batch = batch.replace(prev_logp=self._by_rows(batch, partial(response_columns, split))["logp"])
        if self.critic is not None:
            critic = self.critic
            batch = batch.replace(old_value=self._by_rows(batch, lambda b: {"value": critic(b)})["value"])
        return batch

    @torch.no_grad()
    def values(self, states: Sequence[Sequence[int]]) -> list[float]:
        """What the critic thinks of texts, given as ids. Raises :class:`~policyopt.errors.UserError` without a critic."""
        if self.critic is None:
            raise UserError("the rollout asks for values, but there is no critic: set recipe.critic")
        ids = nn.utils.rnn.pad_sequence([torch.tensor(s, device=self.device) for s in states], batch_first=True)
        length = torch.tensor([len(s) for s in states], device=self.device)
        texts = make_batch(mask=ids.new_zeros(len(ids), 1), prompt=ids, prompt_mask=_first(length, ids.shape[1]))
        found = torch.zeros(len(ids), dtype=self.dtype, device=self.device)
        for rows in self._pieces(texts):
            found[rows] = self.critic.after(ids[rows, : int(length[rows].max())], length[rows]).to(found)
        return found.tolist()

    def _by_rows(self, batch: Batch, f: Callable[[Batch], dict[str, Tensor]]) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {}
        for rows in self._pieces(batch):
            for name, values in f(batch[rows]).items():
                out.setdefault(name, torch.zeros_like(batch.mask))[rows] = values.to(batch.mask)
        return out

    def _moving(self, name: str) -> dict[str, tuple[Tensor, Tensor]]:
        """The parameters by name of a role that follows the policy, each with its float32 copy."""
        role = self.roles.get(name)
        if role is None:
            return {}
        if role.model is self.policy.model:
            raise UserError(
                f"the recipe has a {name} model that moves, but with --lora it is the model without its adapters: train "
                "without --lora or take reference Frozen()"
            )
        return {
            name: (p, p.detach() if p.dtype not in _SHORT else p.detach().float())
            for name, p in role.model.named_parameters()
        }

    @torch.no_grad()
    def follow(self, fraction: float, role: str = "reference") -> None:
        """Move a role by a fraction of its way towards the policy."""
        for name, (p, master) in self._followers[role].items() if fraction else ():
            master.lerp_(self._masters["policy"][name].to(master), fraction)
            p.copy_(master)

    def _pieces(self, batch: Batch) -> Iterator[Tensor]:
        """Row numbers of the micro-batches: rows of like length together, so that little padding is computed."""
        length = batch.mask.sum(1) + batch.prompt_mask.sum(1)
        order = torch.argsort(length, descending=True, stable=True)
        if self.micro_batch is not None:
            yield from order.split(self.micro_batch)
            return
        start = 0
        while start < len(order):
            rows = max(1, _MICRO_TOKENS // max(1, int(length[order[start]])))
            yield order[start : start + rows]
            start += rows

    # Updating ------------------------------------------------------------------------------------------------------

    def _leaves(self, batch: Batch, recipe: Recipe) -> dict[str, Tensor]:
        """The columns that carry the gradient, as functions of the parameters."""
        out = response_columns(
            self.split, batch, entropy="entropy" in recipe.needs, statistics=recipe.live, roles=self.roles
        )
        if self.critic is not None:
            out["value"] = self.critic(batch)
        return out

    def gradient(self, recipe: Recipe, batch: Batch) -> UpdateReport:
        r"""Put the gradient of the objective on a mini-batch into ``.grad``, the same one for any split into
        micro-batches.

        The objective is a function of the leaf ``logp`` [N, T] (and entropy, value), so its gradient is
        :math:`\sum_{i,t} \frac{\partial L}{\partial logp_{i,t}} \nabla\log\pi(y_{i,t})`. Where every part can be computed row by
        row, each micro-batch is passed once. Where rows are coupled and the batch does not fit at once, a first pass
        without gradient finds the whole leaf, and a second one pushes the token weights of the whole batch through
        the model.
        """
        self._zero_grad()
        batch = batch.replace(share=recipe.aggregate(batch))
        report = UpdateReport(0.0, 0.0, True, torch.zeros_like(batch.mask))
        pieces = list(self._pieces(batch))
        whole: dict[str, Tensor] | None = None
        if recipe.unit in ("group", "batch") and len(pieces) > 1:
            with torch.no_grad():
                leaves = self._by_rows(batch, lambda b: self._leaves(b, recipe))
            loss, whole = token_gradients(recipe, batch, leaves)
            self._observe(report, recipe, batch.with_leaves(leaves), loss, whole["logp"])
        for rows in pieces:
            piece = batch[rows]
            leaves = self._leaves(piece, recipe)
            if whole is None:
                loss, gradients = token_gradients(recipe, piece, leaves)
                seen = piece.with_leaves({name: x.detach() for name, x in leaves.items()})
                self._observe(report, recipe, seen, loss, gradients["logp"])
            else:
                gradients = {name: g[rows] for name, g in whole.items()}
            report.weight[rows] = -gradients["logp"].to(report.weight)
            torch.autograd.backward(list(leaves.values()), [gradients[name].to(x.dtype) for name, x in leaves.items()])
        return report

    @torch.no_grad()
    def _observe(self, report: UpdateReport, recipe: Recipe, piece: Batch, loss: Tensor, gradient: Tensor) -> None:
        """Add a piece of a mini-batch to the sums that the log is made of."""
        report.loss += float(loss)
        mask, sums = piece.mask, report.sums
        weight = -gradient
        log_ratio = recipe.ratio(piece)
        said = dict(recipe.surrogate.metrics(log_ratio, piece))
        for weight_part in recipe.weight:
            said |= weight_part.metrics(log_ratio, piece)
        for regularizer in recipe.regularizers:
            said |= regularizer.metrics(piece)
        counted = (piece.share != 0).to(mask)  # averages are over the tokens that the aggregation counts
        found = {"tokens": counted} | {name: masked(x, counted) for name, x in said.items()}
        found |= {"signal/positive": weight.clamp(min=0), "signal/negative": (-weight).clamp(min=0)}
        fresh = (piece.version == self.version).to(mask)[:, None] * mask
        if piece.source is not None:  # auxiliary rows may be scored at another temperature than they were drawn at
            fresh = fresh * (piece.source == 0)[:, None]
        sampled = piece.old_logp if piece.rollout_logp is None else piece.rollout_logp
        gap = (piece.logp - sampled).abs() * fresh
        found |= {"mismatch/tokens": fresh, "mismatch/sum": gap}
        for name, x in found.items():
            sums[name] = sums.get(name, 0.0) + float(masked(x, mask).sum())
        sums["mismatch/max"] = max(sums.get("mismatch/max", 0.0), float(gap.max()) if gap.numel() else 0.0)

    def update(self, recipe: Recipe, batch: Batch) -> UpdateReport:
        """One optimiser step on a mini-batch. Nothing changes where the loss or a gradient is not finite."""
        report = self.gradient(recipe, batch)
        for p, master in self._pairs():
            if master is not p and p.grad is not None:
                master.grad = p.grad.float()
        norms = {
            name: float(nn.utils.clip_grad_norm_(o.param_groups[0]["params"], self.clip_norm))
            for name, o in self.optimizers.items()
        }
        report.grad_norm = norms["policy"]
        report.applied = all(map(math.isfinite, [report.loss, *norms.values()]))
        if report.applied:
            for optimizer in self.optimizers.values():
                optimizer.step()
            self._publish()
            self.version += 1
            self.sampler.version = self.version
        self._zero_grad()
        return report

    def _pairs(self) -> Iterator[tuple[nn.Parameter, nn.Parameter]]:
        """Every trained parameter with the one that the optimiser moves; mostly they are the same."""
        for role, named in self._parameters.items():
            for name, p in named.items():
                yield p, self._masters[role][name]

    def _zero_grad(self) -> None:
        for pair in self._pairs():
            for p in pair:
                p.grad = None

    @torch.no_grad()
    def _publish(self) -> None:
        """Round the float32 copies to the weights that the model computes with."""
        for p, master in self._pairs():
            if master is not p:
                p.copy_(master)

    @torch.no_grad()
    def update_size(self) -> float:
        r"""Relative size of the last optimiser step, :math:`|\Delta\theta|/|\theta|`, from Adam's moments (without weight decay)."""
        group = self.optimizers["policy"].param_groups[0]
        beta1, beta2 = group["betas"]
        moved = size = 0.0
        for p in group["params"]:
            state = self.optimizers["policy"].state.get(p)
            if not state:
                continue
            step = float(state["step"])
            direction = (
                state["exp_avg"] / (1 - beta1**step) / ((state["exp_avg_sq"] / (1 - beta2**step)).sqrt() + group["eps"])
            )
            moved += float(direction.float().norm()) ** 2
            size += float(p.float().norm()) ** 2
        return group["lr"] * math.sqrt(moved / size) if size else 0.0

    # State ---------------------------------------------------------------------------------------------------------

    def parameters(self) -> dict[str, Tensor]:
        """What is trained of the policy, by name, in the precision that the optimiser moves it in."""
        return {name: p.detach() for name, p in self._masters["policy"].items()}

    def tensors(self) -> dict[str, Tensor]:
        """Everything that training changes, by name: parameters and the moments of the optimisers."""
        out: dict[str, Tensor] = {}
        for role, parameters in self._masters.items():
            for name, p in parameters.items():
                out[f"{role}/{name}"] = p
                for key, value in self.optimizers[role].state.get(p, {}).items():
                    out[f"{role}.{key}/{name}"] = value
        return out | {
            f"{role}/{name}": master for role, named in self._followers.items() for name, (_, master) in named.items()
        }

    @torch.no_grad()
    def load_tensors(self, tensors: dict[str, Tensor], version: int) -> None:
        """Put back what :meth:`tensors` gave. Raises ``KeyError`` for a parameter that is missing or of another
        shape."""
        for role, parameters in self._masters.items():
            optimizer = self.optimizers[role]
            for name, p in parameters.items():
                p.copy_(_saved(tensors, f"{role}/{name}", p))
                state = {
                    key: tensors[f"{role}.{key}/{name}"]
                    for key in ("step", "exp_avg", "exp_avg_sq")
                    if f"{role}.{key}/{name}" in tensors
                }
                if state:
                    optimizer.state[p] = {key: value.clone().to(p.device) for key, value in state.items()}
        for role, named in self._followers.items():
            for name, (mine, master) in named.items():
                master.copy_(_saved(tensors, f"{role}/{name}", mine))
                mine.copy_(master)
        self._publish()
        self.version = self.sampler.version = version


def _first(length: Tensor, width: int) -> Tensor:
    """[N, width] 1 on the first so many places of each row."""
    return (torch.arange(width, device=length.device) < length[:, None]).long()


def _master(p: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(p.detach().float()) if p.dtype in _SHORT else p


def _saved(tensors: dict[str, Tensor], name: str, like: Tensor) -> Tensor:
    """A tensor of a checkpoint, which has to be there in the shape of ``like``."""
    found = tensors.get(name)
    if found is None or found.shape != like.shape:
        seen = "missing" if found is None else f"shape {tuple(found.shape)}, expected {tuple(like.shape)}"
        raise KeyError(f"{name}: {seen}")
    return found
