"""The models beside the policy: who fills each role, where it rests, and how those that move follow the policy."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Set
from contextlib import ExitStack

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from policyopt.engine.local.weights import saved
from policyopt.errors import UserError
from policyopt.models.head import SHORT
from policyopt.models.load import Policy, Role
from policyopt.recipe import Recipe

START = ("reference", "previous")
"""Roles that the policy of the start fills where no other model is given."""


def fill_roles(
    policy: Policy, recipe: Recipe, given: Mapping[str, Policy], wanted: frozenset[str] | None = None
) -> dict[str, Role]:
    """A model for each role that a recipe reads, or of those that are ``wanted``; one that it does not read is never made.

    Raises :class:`~policyopt.errors.UserError` for a role that nobody fills, and a model that reads other tokens.
    """
    roles: dict[str, Role] = {}
    for name in sorted(recipe.roles if wanted is None else wanted):
        if name in given:
            roles[name] = given[name].frozen(name, policy)
        elif name in START:
            roles[name] = policy.reference()
        else:
            raise UserError(
                f"{recipe.name} reads a model in the role {name!r}, and none is given: hand it over in `roles`"
            )
    return roles


def rest(roles: Mapping[str, Role], policy: Policy, drawn: Set[str]) -> None:
    """Let the models beside the policy rest in main memory while nobody reads them, but for those that programs are ``drawn``
    from: these are read at every token. Says so where there is nothing to move.

    Raises :class:`~policyopt.errors.UserError` for models that are spread over ranks.
    """
    beside = [role for name, role in roles.items() if role.model is not policy.model and name not in drawn]
    if any(isinstance(p, DTensor) for role in beside for p in role.model.parameters()):
        raise UserError("--offload: ranks hold a share of every model, and gather it layer by layer; leave it out")
    if not sum([role.rest() for role in beside]):
        why = (
            "all models are in main memory"
            if beside
            else "the recipe reads no model beside the policy that could be moved"
        )
        logging.getLogger(__name__).warning(f"--offload changes nothing here: {why}")


def here(roles: Mapping[str, Role], some: Set[str]) -> ExitStack:
    """Inside of it, some roles that rest in main memory stay on the device between one reading and the next."""
    stack = ExitStack()
    for name in sorted(some & roles.keys()):
        stack.enter_context(roles[name].here)
    return stack


class Follower:
    """A role that moves towards the policy: its parameters, each with a float32 copy where it has 16 bits.

    Raises :class:`~policyopt.errors.UserError` where the role has not the policy's parameters.
    """

    def __init__(self, name: str, role: Role, policy: Policy, masters: Mapping[str, Tensor]) -> None:
        if role.model is policy.model:
            raise UserError(
                f"the recipe has a {name} model that moves, but with --lora it is the model without its adapters: train "
                "without --lora or take reference Frozen()"
            )
        self.name, self._masters = name, masters
        self.parameters: dict[str, tuple[Tensor, Tensor]] = {
            key: (p, p.detach() if p.dtype not in SHORT else p.detach().float())
            for key, p in role.model.named_parameters()
        }
        shapes = {key: p.shape for key, p in masters.items()}
        if shapes != {key: p.shape for key, (p, _) in self.parameters.items()}:
            raise UserError(
                f"the recipe has a {name} model that moves towards the policy, and --role {name} names a model of another "
                "shape (or the policy trains adapters): name none, or take reference Frozen()"
            )

    @torch.no_grad()
    def follow(self, fraction: float) -> None:
        """Move by a fraction of the way towards the policy."""
        for key, (p, master) in self.parameters.items() if fraction else ():
            master.lerp_(self._masters[key].to(master), fraction)
            p.copy_(master)

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds of it."""
        return {f"{self.name}/{key}": master for key, (_, master) in self.parameters.items()}

    @torch.no_grad()
    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`tensors` gave. Raises ``KeyError`` for a tensor that is missing or of another shape."""
        for key, (p, master) in self.parameters.items():
            master.copy_(saved(tensors, f"{self.name}/{key}", p))
            p.copy_(master)
