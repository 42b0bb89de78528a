"""RedTeamCUA."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from policyopt.part import Label, Probe, part
from policyopt.registry import study
from policyopt.rows import Batch


def attack_rates(attempted: Tensor, succeeded: Tensor) -> dict[str, float]:
    """How often an attack was followed, how often it came off, and how often it came off where it was followed (0 where it
    never was), of episodes [N] with an attack in each."""
    tried, done = float((attempted > 0).double().mean()), float((succeeded > 0).double().mean())
    return {"attempt": tried, "success": done, "completed": done / tried if tried else 0.0}


@part
class AttackRates(Probe):
    r"""How often the policy tries to do what an attacker has put before it, and how often that comes off.

    .. math:: AR = \frac1n\sum_e a_e,\qquad ASR = \frac1n\sum_e s_e

    Over the sampled episodes of an evaluation, from what the world counts: ``attack/attempt``, ``attack/success`` and
    ``attack/completed``, which is ASR / AR. Nothing where the world counts no attacks. Source: RedTeamCUA, arXiv:2505.21936;
    the last number is ours.
    """

    attempted: Label = "attempt"
    """What the world counts where the policy follows the attacker."""
    succeeded: Label = "attack"
    """What it counts where the attacker's goal is reached."""

    def model(self, policy: Any, batch: Batch) -> dict[str, float]:
        said = batch.components()
        if self.attempted not in said or self.succeeded not in said:
            return {}
        rates = attack_rates(batch.component(self.attempted), batch.component(self.succeeded))
        return {f"attack/{name}": x for name, x in rates.items()}


@study(
    arxiv="2505.21936",
    code="OSU-NLP-Group/RedTeamCUA",
    confidence="code",
    use="policyopt train grpo --task injected-maze --with redteamcua",
)
def redteamcua(attempted: str = "attempt", succeeded: str = "attack") -> tuple[Probe, ...]:
    r"""Whether an agent follows instructions that an attacker has put into what it reads: attempts beside successes.

    .. math:: AR = \frac1n\sum_e a_e,\qquad ASR = \frac1n\sum_e s_e,\qquad \text{gap} = AR - ASR

    An attempt is judged by what the agent did, a success by the state of the world in the end. A weak agent that fails
    harmlessly has a low ASR and a high AR, so that both are needed, and beside them the accuracy on the harmless task: who
    ignores all that tools say has AR and ASR of 0 and solves nothing. Both are measured at evaluations
    (:class:`~policyopt.methods.agents.redteamcua.AttackRates`), from what the world counts under ``attempted`` and
    ``succeeded``; ``--task injected-maze`` is a testbed with an attacker. To train against attacks,
    :class:`~policyopt.methods.agents.arpo_replay.ComponentCost` among the shapes takes something off for an attempt, since a
    success is too seldom to learn from; what tools say is never trained on. The paper tests agents on virtual machines with 864
    attacks, from the page with the attack on or from the beginning; its worlds are no part of this library. Source:
    arXiv:2505.21936 and the authors' code (OSU-NLP-Group/RedTeamCUA).
    """
    return (AttackRates(attempted=attempted, succeeded=succeeded),)
