"""OPPO."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from policyopt.errors import UserError
from policyopt.registry import tool

EPS = 1e-6
"""Added to every coordinate of a difference before its norm is taken, as ``torch.nn.TripletMarginLoss`` does."""


def triplet(star: Tensor, better: Tensor, worse: Tensor, margin: float = 1.0, eps: float = EPS) -> Tensor:
    r"""By how much the preferred codes should be nearer, :math:`\mathrm{mean}\,[\|z^*-z^++\epsilon\| - \|z^*-z^-+\epsilon\| + m]_+`; 0 without a pair.

    ``better`` and ``worse`` are [P, d]. A pair that is apart by the margin has no gradient.
    """
    near, far = ((star - codes + eps).norm(dim=-1) for codes in (better, worse))
    gap = near - far + margin
    return gap.clamp(min=0).sum() / max(1, len(better))


def on_the_sphere(codes: Tensor) -> Tensor:
    r"""How far codes [N, d] are from the unit sphere, :math:`\mathrm{mean}\,(\|z\| - 1)^2`."""
    return ((codes.norm(dim=-1) - 1) ** 2).mean()


def encoder_loss(
    reconstruction: Tensor | float, batches: Sequence[Tensor], star: Tensor, better: Tensor, worse: Tensor, *,
    margin: float = 1.0, eps: float = EPS, pref: float = 0.1, norm: float = 0.1,
) -> Tensor:  # fmt: skip
    r"""What encoder and policy learn from (step A): to reconstruct, to bring preferred codes nearer to z*, and to stay on the sphere.

    .. math:: L = L_{rec} + \lambda_p\,triplet(z^*, z^+, z^-) + \lambda_n\sum_{batches}\mathrm{mean}\,(\|z\| - 1)^2

    ``batches`` are the codes [N, d] of the two batches that pairs are made across, ties included; :math:`z^*` gets no gradient here.
    """
    return (
        reconstruction
        + pref * triplet(star.detach(), better, worse, margin, eps)
        + norm * torch.stack([on_the_sphere(codes) for codes in batches]).sum()
    )


@tool(
    arxiv="2305.16217",
    code="bkkgbkjb/OPPO",
    confidence="code",
    use="python: from policyopt.methods.preference.oppo import oppo; star = oppo(better, worse)",
)
def oppo(
    better: Tensor, worse: Tensor, margin: float = 1.0, lr: float = 1e-2, steps: int = 500, start: Tensor | None = None
) -> Tensor:
    r"""Find the one vector that lies nearer to the codes of what was preferred than to those of what was not.

    .. math:: z^* = \mathrm{argmin}_z\ \mathrm{mean}_P\,\big[\|z - z^+\| - \|z - z^-\| + m\big]_+

    OPPO learns three things from ranked trajectories, in turns: an encoder and a policy that reconstructs a trajectory from its code z
    (:func:`~policyopt.methods.preference.oppo.encoder_loss`, with :math:`z^*` held), and then :math:`z^*`, the codes held; it acts with the
    policy under :math:`z^*`. This is the second turn, on codes [P, d] of any encoder, such as the mean vectors of texts: ``steps`` steps of
    Adam from ``start``, or from the mean of the preferred ones, so that the result is the same every time. No method of this
    library trains an encoder of responses or takes a vector as a prompt, so the whole is not one here.

    Raises :class:`~policyopt.errors.UserError` where the codes are not two tables of one shape, with a pair at least. Source: arXiv:2305.16217 and the authors'
    code: margin 1, weights 0.1; their lr for :math:`z^*` is 1e-3, over a whole run. Our reading: the start.
    """
    if better.shape != worse.shape or better.dim() != 2 or not len(better):
        raise UserError(
            f"oppo: codes of shapes {list(better.shape)} and {list(worse.shape)}; give two tables [P, d], a row for each pair"
        )
    better, worse = better.detach(), worse.detach()
    star = (better.mean(0) if start is None else start).detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([star], lr)
    for _ in range(steps):
        optimizer.zero_grad()
        with torch.enable_grad():
            triplet(star, better, worse, margin).backward()
        optimizer.step()
    return star.detach()
