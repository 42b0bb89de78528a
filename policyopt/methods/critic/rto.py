"""RTO."""

from __future__ import annotations

from torch import Tensor

from policyopt.claims import Claim
from policyopt.methods.critic.ppo import ppo
from policyopt.part import NonNegative, Positive, RoleName, Shape, part
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, masked
from policyopt.schema import member


@part
class ImplicitTokenReward(Shape):
    r"""How much likelier a model that has learned preferences makes each token than the reference does, as a reward on it.

    .. math:: \rho_{i,t} = \mathrm{clip}\Big(\beta\log\frac{\pi_{dpo}}{\pi_{ref}}(y_{i,t}),\ \pm c\Big),\qquad R_i \leftarrow \mathrm{clip}(R_i, \pm c_R)

    The bound acts after the scale. Without it the rewards of a response add up to DPO's implicit reward. Source: RTO,
    arXiv:2404.18922, and zkshan2002/RTO.
    """

    coef: NonNegative = 0.05
    """beta."""
    clip: Positive | None = 0.05
    """c, the bound on each token; None for none."""
    reward_clip: Positive | None = 10.0
    """c_R, the bound on the reward of the response; None for none."""
    target: RoleName = "dpo"
    """The model that has learned preferences: a role, with ``--role dpo=PATH``."""

    @property
    def needs(self) -> frozenset[str]:
        """Both models' log-probabilities."""
        return frozenset({"ref_logp", member("logp_of", self.target)})

    def __call__(self, batch: Batch) -> Batch:
        dense = self.dense(batch)
        reward = batch.reward
        if self.reward_clip is not None:
            reward = reward.clamp(-self.reward_clip, self.reward_clip)
        return batch.replace(
            reward=reward, token_reward=dense if batch.token_reward is None else batch.token_reward + dense
        )

    def dense(self, batch: Batch) -> Tensor:
        """[N, T] rho."""
        scaled = self.coef * masked(batch.logp_of(self.target) - batch.ref_logp, batch.mask)
        return scaled if self.clip is None else scaled.clamp(-self.clip, self.clip)


@method(
    parent=ppo,
    arxiv="2404.18922",
    code="zkshan2002/RTO",
    confidence="code",
    claim=Claim(
        "A model trained by DPO tells PPO which tokens are good: more is learned from as many responses.",
        beyond="it takes a policy trained by DPO on preferences that the judge shares, which no testbed brings",
    ),
)
def rto(
    beta1: float = 0.05,
    beta2: float = 0.01,
    token_clip: float | None = 0.05,
    reward_clip: float | None = 10.0,
    gamma: float = 1.0,
    lam: float = 0.95,
    low: float | None = 0.2,
    high: float | None = 0.2,
    epochs: int = 1,
    minibatches: int = 1,
    group_size: int = 1,
) -> Recipe:
    r"""Reinforced Token Optimization: PPO with the log-ratio of a model trained by DPO as a further reward on every token.

    .. math:: \rho_{i,t} = \mathrm{clip}\Big(\beta_1\log\frac{\pi_{dpo}}{\pi_{ref}},\ \pm c\Big) - \beta_2\log\frac{\pi_{old}}{\pi_{ref}} + 1[t = T]\,\mathrm{clip}(R_i, \pm c_R)

    c = ``token_clip``, c_R = ``reward_clip``; with ``beta1`` 0 it is PPO. The shaping of a response is at most c times its length: watch the
    length. The model comes by ``--role dpo=PATH``. Source: arXiv:2404.18922 and zkshan2002/RTO (defaults; 1,024 responses of which
    128 make an update, ``minibatches`` 8). Our reading: 0 scales to nothing, where the code leaves out the scale; the critic is PPO's.
    """
    recipe = ppo(
        low, high, kl_coef=beta2, gamma=gamma, lam=lam, epochs=epochs, minibatches=minibatches, group_size=group_size
    )
    dense = ImplicitTokenReward(coef=beta1, clip=token_clip, reward_clip=reward_clip)
    return recipe.replace(shape=(dense, *recipe.shape))
