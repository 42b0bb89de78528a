"""Recipes among verl's losses and estimators: against stand-ins of its doors here, against verl itself where it is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from policyopt.errors import UserError
from policyopt.integrations import verl
from policyopt.objective import credit, objective, shaped
from policyopt.recipe import Recipe
from policyopt.registry import get_method
from policyopt.rows import masked
from tests.batches import random_batch, ready

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("POLICYOPT_VERL", "")
"""The Python of an environment with verl."""


def agg_loss(
    loss_mat: Tensor, loss_mask: Tensor, loss_agg_mode: str, dp_size: int = 1, batch_num_tokens: int | None = None,
    global_batch_size: int | None = None, loss_scale_factor: int | None = None,
) -> Tensor:  # fmt: skip
    """As verl's: sums over tokens or rows, over numbers of the whole mini-batch."""
    rows = torch.where(loss_mask.bool(), loss_mat, 0.0).sum(1)
    if loss_agg_mode == "token-mean":
        return rows.sum() / batch_num_tokens * dp_size
    over = {"seq-mean-token-mean": loss_mask.sum(1).clamp(min=1), "seq-mean-token-sum-norm": loss_scale_factor}
    return (rows / over.get(loss_agg_mode, 1)).sum() / global_batch_size * dp_size


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stand-in for ``verl.trainer.ppo.core_algos``."""
    names = ("verl", "verl.trainer", "verl.trainer.ppo", "verl.trainer.ppo.core_algos")
    modules = {name: ModuleType(name) for name in names}
    core: Any = modules[names[-1]]
    modules["verl"].__version__ = "0.9.1"  # type: ignore[attr-defined]
    modules[names[-2]].core_algos = core  # type: ignore[attr-defined]
    core.ADV_ESTIMATOR_REGISTRY, core.POLICY_LOSS_REGISTRY, core.agg_loss = {}, {}, agg_loss

    def door(registry: dict[str, Any]) -> Callable[[str], Any]:
        return lambda name: lambda function: registry.setdefault(name, function)

    core.register_adv_est, core.register_policy_loss = (
        door(core.ADV_ESTIMATOR_REGISTRY),
        door(core.POLICY_LOSS_REGISTRY),
    )
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return core


class Config(SimpleNamespace):
    """A configuration of the actor."""

    def get(self, name: str, default: Any = None) -> Any:
        return getattr(self, name, default)


def actor(recipe: Recipe, rows: int, tokens: int, **more: Any) -> Config:
    head = "actor_rollout_ref.actor."
    given = {k.removeprefix(head): x for k, x in verl.settings(recipe).items() if k.startswith(head)}
    if "loss_scale_factor" in given:
        given["loss_scale_factor"] = 9
    info = {
        "dp_size": 1,
        "batch_num_tokens": tokens,
        "global_batch_size": rows,
        "loss_scale_factor": given.get("loss_scale_factor"),
    }
    return Config(**given | {"global_batch_info": info} | more)


@pytest.mark.parametrize("name", ["cispo", "gspo", "dr-grpo", "luspo"])
def test_micro_batches_add_up_to_the_objective(name: str, core: Any) -> None:
    recipe = get_method(name)()
    verl.register(mine=recipe)
    batch = ready(recipe, random_batch(groups=(8,)))
    config = actor(recipe, len(batch), int(batch.mask.sum()))
    logp, total = batch.logp.clone().requires_grad_(), torch.zeros((), dtype=torch.float64)
    for some in (slice(0, 3), slice(3, 8)):
        piece = batch[some]
        loss, metrics = core.POLICY_LOSS_REGISTRY["policyopt/mine"](
            old_log_prob=piece.old_logp, log_prob=logp[some], advantages=piece.advantage, response_mask=piece.mask.bool(),
            loss_agg_mode=config.loss_agg_mode, config=config, rollout_is_weights=None,
        )  # fmt: skip
        total = total + loss
        assert metrics and all(isinstance(x, float) for x in metrics.values())
    free = batch.logp.clone().requires_grad_()
    wanted = objective(recipe, batch.replace(logp=free, share=None))
    torch.testing.assert_close(total, wanted)
    torch.testing.assert_close(torch.autograd.grad(total, logp)[0], torch.autograd.grad(wanted, free)[0])


def test_the_terms_that_verl_adds_are_left_out_and_weights_of_its_rollout_correction_stand_on_the_rest(
    core: Any,
) -> None:
    recipe = get_method("grpo")()
    verl.register(grpo=recipe)
    batch = ready(recipe, random_batch(groups=(4,)))
    config = actor(recipe, 4, int(batch.mask.sum()))
    assert config.use_kl_loss and config.kl_loss_type == "low_var_kl" and config.kl_loss_coef == 0.04
    loss = core.POLICY_LOSS_REGISTRY["policyopt/grpo"]
    given = (batch.old_logp, batch.logp, batch.advantage, batch.mask, "seq-mean-token-mean", config)
    plain = objective(get_method("grpo")(kl_coef=0.0), batch.replace(share=None))
    torch.testing.assert_close(loss(*given)[0], plain)
    torch.testing.assert_close(loss(*given, torch.full_like(batch.mask, 0.5))[0], plain / 2)


def test_advantages_are_over_the_groups_of_uids(core: Any) -> None:
    assert "policyopt/maxrl" in verl.register()
    reward, mask = torch.zeros(4, 3), torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 1, 0]])
    reward[[0, 1, 2, 3], [1, 0, 2, 1]] = torch.tensor([1.0, 0.0, 0.5, 0.25])
    found, returns = core.ADV_ESTIMATOR_REGISTRY["policyopt/dr-grpo"](
        token_level_rewards=reward,
        response_mask=mask,
        index=["b", "b", "a", "a"],
        config=Config(use_kl_in_reward=False),
        extra=1,
    )
    torch.testing.assert_close(found, torch.tensor([[0.5], [-0.5], [0.125], [-0.125]]) * mask)
    assert returns is found


def test_a_penalty_in_the_reward_is_the_one_that_verl_has_put_there(core: Any) -> None:
    recipe = get_method("reinforce-plus-plus")()
    verl.register(mine=recipe)
    batch = random_batch(groups=(4, 4)).replace(token_reward=None)
    wanted = credit(recipe, shaped(recipe, batch)).advantage
    kl = masked(batch.old_logp - batch.ref_logp, batch.mask)
    rewards = batch.terminal() * batch.reward[:, None] - 0.001 * kl
    config = Config(use_kl_in_reward=True, kl_penalty="kl", kl_ctrl=Config(type="fixed", kl_coef=0.001))
    estimator = core.ADV_ESTIMATOR_REGISTRY["policyopt/mine"]
    found, _ = estimator(rewards, batch.mask, batch.group.tolist(), config=config)
    torch.testing.assert_close(found, wanted)
    config.kl_ctrl.type = "adaptive"
    with pytest.raises(UserError, match=r"algorithm.kl_ctrl.type is 'adaptive', expected 'fixed'"):
        estimator(rewards, batch.mask, batch.group.tolist(), config=config)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"use_kl_loss": False},
            r"actor.use_kl_loss is False, expected True.*python -m policyopt.integrations.verl grpo",
        ),
        ({"kl_loss_type": "kl"}, r"kl_loss_type is 'kl', expected 'low_var_kl'"),
        ({"kl_loss_coef": 0.001}, r"kl_loss_coef is 0.001, expected 0.04"),
        ({"entropy_coeff": 0.01}, r"entropy_coeff is 0.01, expected 0"),
        ({"ppo_epochs": 2}, r"ppo_epochs is 2, expected 1"),
        ({"loss_agg_mode": "token-mean"}, r"loss_agg_mode is 'token-mean', expected 'seq-mean-token-mean'"),
        ({"global_batch_info": {}}, r"global_batch_info has no global_batch_size"),
    ],
)
def test_a_configuration_that_contradicts_the_recipe_is_refused(core: Any, changes: dict[str, Any], said: str) -> None:
    recipe = get_method("grpo")()
    verl.register(grpo=recipe)
    batch = ready(recipe, random_batch(groups=(4,)))
    config = actor(recipe, 4, 9, **changes)
    with pytest.raises(UserError, match=said):
        core.POLICY_LOSS_REGISTRY["policyopt/grpo"](
            batch.old_logp, batch.logp, batch.advantage, batch.mask, config.loss_agg_mode, config
        )


def test_estimators_refuse_what_would_change_the_reward_behind_their_back(core: Any) -> None:
    verl.register()
    estimator = core.ADV_ESTIMATOR_REGISTRY["policyopt/gspo"]
    with pytest.raises(UserError, match=r"algorithm.use_kl_in_reward is True, expected False"):
        estimator(torch.zeros(2, 2), torch.ones(2, 2), ["a", "a"], config=Config(use_kl_in_reward=True))
    with pytest.raises(UserError, match="no uid"):
        estimator(torch.zeros(2, 2), torch.ones(2, 2))


def test_what_cannot_be_served_is_not_registered(core: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="ppo cannot be carried out by the loop of verl"):
        verl.register(ppo="ppo", gspo="gspo")
    assert not core.POLICY_LOSS_REGISTRY
    monkeypatch.setattr(sys.modules["verl"], "__version__", "0.10.0")
    with pytest.raises(UserError, match=r"for verl 0\.9, and 0\.10\.0 is here"):
        verl.register()
    monkeypatch.setitem(sys.modules, "verl.trainer.ppo", None)
    with pytest.raises(UserError, match=r"pip install verl==0\.9\.1"):
        verl.register()


def test_the_settings_are_printed_as_verl_takes_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert verl.main(["dr-grpo"]) == 0
    out = capsys.readouterr().out
    assert "algorithm.adv_estimator=policyopt/dr-grpo\n" in out and "use_kl_loss=false" in out
    assert "actor_rollout_ref.actor.loss_scale_factor=${data.max_response_length}" in out
    assert verl.main(["ppo"]) == 2 and "cannot be carried out" in capsys.readouterr().err
    assert verl.main(["nothing"]) == 2 and "no method is called" in capsys.readouterr().err


@pytest.mark.heavy
@pytest.mark.skipif(not PYTHON, reason="POLICYOPT_VERL names no Python of an environment with verl 0.9.1")
def test_losses_estimators_and_the_loss_of_the_workers_of_verl_itself() -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT), "VERL_USE_EXTERNAL_MODULES": "policyopt.integrations.verl_plugin"}
    line = [PYTHON, "-W", "ignore", "-m", "tests.integrations.verl_cases"]
    done = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    said = [
        name for name in (ROOT / "tests/integrations/verl_cases.py").read_text().split() if name.startswith("same_")
    ]
    assert done.stdout.split()[-len(said) :] == [name.partition("(")[0] for name in said]
