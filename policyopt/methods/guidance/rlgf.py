"""RLGF."""

from __future__ import annotations

import asyncio
import random
from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.critic.ppo import ppo
from policyopt.part import Fraction, NonNegative, Unit, part
from policyopt.parts import BySource, ClippedValueLoss, FromProgram, Likelihood, OwnTokens
from policyopt.parts.select.rows import main_rows
from policyopt.recipe import Recipe, require
from policyopt.registry import method
from policyopt.rows import Batch, masked_mean
from policyopt.sources.draw import DatasetReset, Group
from policyopt.sources.draw.begun import go_on
from policyopt.sources.draw.target import references
from policyopt.sources.program import Context, Question, Response, Sampler


@part
class GuidedValueLoss(ClippedValueLoss):
    r"""The clipped error of the critic, where a guide finishes a response on the guide's tokens alone.

    .. math:: \frac{1}{\sum_{i,t} m_{i,t}}\sum_{i,t} m_{i,t}\,\ell_{i,t},\qquad
              m = 1\text{ on the guide's tokens of a row that has some},\text{ else on all}

    It is then the guide's value that the policy's tokens before are credited with. Rows of auxiliary programs are left
    out. Source: RLGF, arXiv:2306.11816, and the authors' code (Cornell-RL/tril).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"value", "guided"})
    unit: ClassVar[Unit] = "batch"

    def learned(self, batch: Batch) -> Tensor:
        every = super().learned(batch)
        guided = every * (batch.mask - batch.own())
        return torch.where(guided.any(-1, keepdim=True), guided, every) * main_rows(batch)[:, None]

    def __call__(self, batch: Batch) -> Tensor:
        return masked_mean(super().__call__(batch), self.learned(batch))


Setting = Literal["ppo++", "aggrevated"]


def finished_by(start: Response, rest: Response, h: int) -> Response:
    """The first h tokens of the policy's response, and a guide's continuation that the policy has scored."""
    return Response(
        start.tokens[:h] + rest.tokens,
        start.logp[:h] + rest.logp,
        start.entropy[:h] + rest.entropy,
        rest.stop_reason,
        support=start.supports[:h] + rest.support,
        routes=start.routes,
        versions=start.versions[:h] + rest.versions,
        guided=[False] * h + [True] * len(rest.tokens),
        temperature=rest.temperature,
    )


@part
class WithGuide(Group):
    r"""Each response is begun by the policy and finished by a guide, or the other way round.

    .. math:: h = 1 + \lfloor u_2\,(n - 1) \rfloor \text{ if } u_1 < share \text{ and } n \ge 2, \text{ else } 0

    Who begins writes a whole response of n tokens, of which h stay; the other goes on from there. In the setting
    ``ppo++`` the guide begins, and its tokens are context. In ``aggrevated`` the policy begins, and the guide's tokens
    are marked (``Batch.guided``). ``lols`` is ppo++ in a share ``tau`` of the steps, drawn step by step; ``d2lols`` is
    aggrevated before step ``tau``, then ppo++. The guide is the model of the role teacher. Source: RLGF,
    arXiv:2306.11816, and the authors' code (Cornell-RL/tril).
    """

    asks: ClassVar[frozenset[str]] = frozenset({"scoring"})

    algorithm: Literal["ppo++", "aggrevated", "lols", "d2lols"] = "ppo++"
    """Who begins."""
    share: Fraction = 0.6
    """Probability that a response keeps a beginning; without one, who finishes writes it all."""
    tau: NonNegative = 0.8
    """Of lols the share of steps that are ppo++, of d2lols the step of the switch."""
    targets: bool = True
    """Add the worked solution as a target of likelihood (``origin`` 1)."""

    @property
    def uses(self) -> frozenset[str]:
        """The teacher; worked solutions where they are targets."""
        return frozenset({"sampler_of[teacher]", *(("solutions",) if self.targets else ())})

    def setting(self, step: int, u: float) -> Setting:
        """Who begins at a step, counted from 0, with u in [0, 1)."""
        if self.algorithm == "lols":
            return "ppo++" if u < self.tau else "aggrevated"
        if self.algorithm == "d2lols":
            return "aggrevated" if step < self.tau else "ppo++"
        return self.algorithm

    def length(self, response: int, mix: float, place: float) -> int:
        """h, of a response of so many tokens, with u_1 and u_2 in [0, 1)."""
        return DatasetReset(share=self.share).length(response, mix, place)

    async def draw(self, question: Question, context: Context) -> list[Response]:
        guide = context.sampler_of("teacher")
        seed, step, *_ = question.key
        setting = self.setting(step, random.Random(repr(("setting", seed, step))).random())
        write = self.begun_by_guide if setting == "ppo++" else self.begun_by_policy
        chance = random.Random(repr(("reset", question.key)))
        drawn = [
            write(question, context, guide, (*question.key, i), chance.random(), chance.random())
            for i in range(self.size)
        ]
        responses = await asyncio.gather(*drawn)
        return [*responses, *(await references(question, context, self.temperature) if self.targets else ())]

    async def begun_by_guide(
        self, question: Question, context: Context, guide: Sampler, key: tuple[int, ...], mix: float, place: float
    ) -> Response:
        """A response of the setting ppo++."""
        start: list[int] = []
        if mix < self.share:
            [whole] = await guide.generate(
                question.tokens, max_tokens=question.budget, temperature=self.temperature, key=(*key, -1)
            )
            start = whole.tokens[: self.length(len(whole.tokens), mix, place)]
        [response] = await go_on(question, context, start, n=1, temperature=self.temperature, key=key)
        return response

    async def begun_by_policy(
        self, question: Question, context: Context, guide: Sampler, key: tuple[int, ...], mix: float, place: float
    ) -> Response:
        """A response of the setting aggrevated."""
        start = Response([], [], [])
        if mix < self.share:
            [start] = await context.sampler.generate(
                question.tokens, max_tokens=question.budget, temperature=self.temperature, key=key
            )
        h = self.length(len(start.tokens), mix, place)
        begun = (*question.tokens, *start.tokens[:h])
        [rest] = await guide.generate(
            begun, max_tokens=question.budget - h, temperature=self.temperature, key=(*key, -1)
        )
        scored = await context.sampler.logprobs(begun, tuple(rest.tokens), temperature=self.temperature)
        return finished_by(start, scored, h)


SHARE = {"ppo++": 0.6, "aggrevated": 0.8, "lols": 0.8, "d2lols": 0.8}


TAU = {"lols": 0.8, "d2lols": 20.0}


@method(
    parent=ppo,
    arxiv="2306.11816",
    code="Cornell-RL/tril",
    confidence="code",
    claim=Claim(
        "A better model that begins the responses shows PPO good places to start from.",
        "sparse-hard",
        (Effect("accuracy", "higher", 0.1),),
        both={"epochs": 1},
    ),
)
def rlgf(
    algorithm: Literal["ppo++", "aggrevated", "lols", "d2lols"] = "ppo++",
    share: float | None = None,
    tau: float | None = None,
    low: float | None = 0.2,
    high: float | None = 0.2,
    clip_value: float | None = 0.2,
    vf_coef: float = 0.5,
    kl_coef: float = 0.001,
    gamma: float = 0.99,
    lam: float = 0.95,
    target_coef: float = 0.1,
    epochs: int = 5,
    group_size: int = 1,
) -> Recipe:
    r"""RL with guided feedback: another model begins the policy's responses, or finishes them and teaches it what its
    beginnings are worth.

    .. math:: L = -\frac{1}{\sum w}\sum_{i,t} w_{i,t}\min(r_{i,t}A_{i,t}, \mathrm{clip}(r_{i,t}, 1\pm\epsilon)A_{i,t})
              + c_v L_V - \frac{c}{\sum|y|}\sum_{i,t}\log\pi_\theta(y_{i,t})

    With probability ``share`` (beta) the first h tokens of a whole response stay, h uniform in 1 to its length minus 1.
    ``ppo++``: the guide (``--teacher``) writes them, and policy and critic learn from the policy's own, t > h.
    ``aggrevated``: the policy writes them and learns from them, t <= h; the guide writes the others, from which the
    critic learns its value. ``lols``: each step is ppo++ with probability ``tau``, else aggrevated. ``d2lols``:
    aggrevated before step ``tau``, then ppo++. y are worked solutions, c = ``target_coef``. Without a share and a
    target it is PPO; ppo++ with stored references as the guide is DR-PO. Source: arXiv:2306.11816 and the authors'
    code, whose settings for IMDB are the defaults. Our reading: as in the code, the policy learns from all that it
    wrote before the guide took over (the paper takes one action); the KL is paid on every token that is scored, the
    guide's too; advantages are whitened over the policy's tokens, as in PPO; the guide samples as the policy does
    (there from its nucleus); one critic serves both settings of lols, where the code keeps two.
    """
    parent = ppo(low, high, clip_value, vf_coef, kl_coef, gamma=gamma, lam=lam, epochs=epochs, group_size=group_size)
    share = SHARE[algorithm] if share is None else share
    return parent.replace(
        source=WithGuide(
            size=group_size, algorithm=algorithm, share=share, tau=TAU.get(algorithm, 0.0) if tau is None else tau,
            targets=bool(target_coef),
        ),
        advantage=BySource(inner=require(parent.advantage), rows=FromProgram()),
        aggregate=OwnTokens(inner=parent.aggregate),
        regularizers=(Likelihood(coef=target_coef, rows=FromProgram(main=False)),) if target_coef else (),
        critic=GuidedValueLoss(coef=vf_coef, clip=clip_value, gamma=gamma, lam=lam),
    )  # fmt: skip
