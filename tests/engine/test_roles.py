"""Named frozen roles: any model beside the policy, by the name that a recipe gives it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from policyopt.engine.local import LocalEngine
from policyopt.errors import UserError
from policyopt.methods.distillation.kdrl import kdrl
from policyopt.methods.group.grpo import grpo
from policyopt.models.load import LoRA
from policyopt.part import part
from policyopt.parts import KLPenalty
from policyopt.parts.reference.following import EMA
from policyopt.parts.regularizer.kl import KL
from policyopt.recipe import Recipe, recipe_from_dict
from policyopt.schema import member, role_of
from policyopt.sources.program import Context, Question, Response, Rollout
from policyopt.training.config import TrainConfig
from policyopt.training.run import run
from tests.commands import Said
from tests.runs import assert_same_end, left_behind, lines, tiny_run
from tests.tiny import load_tiny, plain_columns, save_tiny_model, token_batch, write_task


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("experts")
    return {name: save_tiny_model(place / name, seed) for seed, name in enumerate(("old-expert", "critic.v2"), start=1)}


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_task(tmp_path_factory.mktemp("task"))


def two_experts() -> Recipe:
    return grpo(group_size=4).replace(
        regularizers=(
            KL(coef=0.1, target="old-expert"),
            KL(coef=0.2, estimator="k2", target="critic.v2", label="second"),
        ),
        shape=(KLPenalty(coef=0.01, target="old-expert"),),
        name="two-experts",
    )


def named(experts: dict[str, Path]) -> dict[str, str]:
    return {name: str(path) for name, path in experts.items()}


def test_columns_are_named_after_roles() -> None:
    for role in ("reference", "teacher", "previous", "old-expert"):
        assert role_of(member("logp_of", role)) == role
    assert member("logp_of", "old-expert") == "logp_of[old-expert]"
    assert member("logp_of", "reference") == "ref_logp"
    assert role_of("entropy") is None
    assert two_experts().roles == {"old-expert", "critic.v2"}
    assert recipe_from_dict(two_experts().to_dict()) == two_experts()
    for bad in ("policy", "critic", "", "a b", "x]"):
        with pytest.raises(ValueError, match="validation error"):
            KL(target=bad)


def test_each_expert_says_what_it_thinks(tiny_model: Path, experts: dict[str, Path]) -> None:
    recipe = two_experts()
    policies = {name: load_tiny(path) for name, path in experts.items()}
    truth = {name: plain_columns(p.model, token_batch())["logp"].detach() for name, p in policies.items()}
    engine = LocalEngine(load_tiny(tiny_model), recipe, policies, lr=1e-2, micro_batch=3)
    batch = engine.annotate(token_batch(), recipe)
    for name, logp in truth.items():
        torch.testing.assert_close(batch.logp_of(name), logp * batch.mask, rtol=0, atol=1e-6)
    loss = recipe.regularizers[0](batch.replace(logp=truth["critic.v2"]))
    k1 = truth["critic.v2"] - truth["old-expert"]
    want = 0.1 * ((-k1).exp() - 1 + k1)
    torch.testing.assert_close(loss * batch.mask, want * batch.mask, rtol=0, atol=1e-6)
    before = {name: [p.clone() for p in policies[name].model.parameters()] for name in policies}
    assert engine.update(recipe, batch.replace(old_logp=batch.mask * -1.0, advantage=batch.mask)).applied
    for name, kept in before.items():
        assert all(torch.equal(a, b) for a, b in zip(kept, policies[name].model.parameters(), strict=True))
    assert not any("expert" in name for name in engine.tensors()), "a frozen role is not in the checkpoint"


def test_two_experts_train_and_resume_to_the_bit(
    tiny_model: Path, experts: dict[str, Path], task: dict[str, str], tmp_path: Path
) -> None:
    def config(out: str, steps: int) -> TrainConfig:
        more: dict[str, Any] = {"steps": steps, "staleness": 1, "roles": named(experts)}
        return tiny_run(tmp_path / out, tiny_model, task, two_experts(), **more)

    run(config("whole", 6), quiet=True)
    run(config("parts", 6), quiet=True)
    metrics = lines(tmp_path / "whole" / "metrics.jsonl")
    assert all(row["update/skipped"] == 0 and row["grad_norm"] > 0 for row in metrics[1:])
    # Go back to the checkpoint after the fourth step, with a stale batch and its columns in it, and on from there.
    newest = max((tmp_path / "parts" / "checkpoints").iterdir())
    assert newest.name == "step-000006"
    for path in newest.iterdir():
        path.unlink()
    newest.rmdir()
    (tmp_path / "parts" / "summary.json").unlink()
    run(config("parts", 6), resume=tmp_path / "parts", quiet=True)
    assert_same_end(tmp_path / "parts", left_behind(tmp_path / "whole"))


def test_a_reference_of_ones_own(tiny_model: Path, experts: dict[str, Path]) -> None:
    recipe, other = grpo(kl_coef=0.1), load_tiny(experts["old-expert"])
    truth = plain_columns(other.model, token_batch())["logp"].detach()
    engine = LocalEngine(load_tiny(tiny_model), recipe, {"reference": other})
    found = engine.annotate(token_batch(), recipe).ref_logp
    torch.testing.assert_close(found, truth * token_batch().mask, rtol=0, atol=1e-6)
    moving = recipe.replace(reference=EMA(decay=0.5))
    engine = LocalEngine(load_tiny(tiny_model), moving, {"reference": load_tiny(experts["old-expert"])})
    engine.follow(1.0)
    same = engine.annotate(token_batch(), moving).ref_logp
    torch.testing.assert_close(
        same, plain_columns(engine.policy.model, token_batch())["logp"].detach() * token_batch().mask, rtol=0, atol=1e-6
    )
    assert any(name.startswith("reference/") for name in engine.tensors()), "a role that moves is in the checkpoint"
    with pytest.raises(UserError, match="names a model of another shape"):
        LocalEngine(load_tiny(tiny_model, lora=LoRA(rank=2)), moving, {"reference": load_tiny(experts["old-expert"])})


@part
class HalfFromExpert(Rollout):
    """Half of the responses come from a named expert."""

    uses: ClassVar[frozenset[str]] = frozenset({"sampler_of[old-expert]"})

    async def draw(self, question: Question, context: Context) -> list[Response]:
        half: dict[str, Any] = {"n": self.size // 2, "max_tokens": question.budget, "temperature": self.temperature}
        mine = await context.sampler.generate(question.tokens, key=question.key, **half)
        theirs = await context.sampler_of("old-expert").generate(question.tokens, key=(*question.key, 1), **half)
        said = [
            await context.sampler.logprobs(question.tokens, tuple(r.tokens), temperature=self.temperature)
            for r in theirs
        ]
        context.count(likelier=sum(sum(r.logp) > sum(s.logp) for r, s in zip(theirs, said, strict=True)))
        return [*mine, *said]


@part
class FromReference(Rollout):
    uses: ClassVar[frozenset[str]] = frozenset({"sampler_of[reference]"})


def test_a_program_draws_from_a_named_expert(
    tiny_model: Path, experts: dict[str, Path], task: dict[str, str], tmp_path: Path
) -> None:
    recipe = grpo(group_size=4, kl_coef=0.0).replace(source=HalfFromExpert(size=4))
    assert recipe.asks["role sampling"] == ("source HalfFromExpert",)
    roles = {"old-expert": str(experts["old-expert"])}
    run(tiny_run(tmp_path / "run", tiny_model, task, recipe, steps=2, roles=roles), quiet=True)
    for row in lines(tmp_path / "run" / "metrics.jsonl")[1:]:
        assert row["rollout/likelier"] > 4, "of eight responses most are likelier under the model that wrote them"


def test_the_policy_without_adapters_is_not_drawn_from(tiny_model: Path) -> None:
    recipe = grpo(group_size=4).replace(source=FromReference(size=4))
    assert LocalEngine(load_tiny(tiny_model), recipe).samplers.keys() == {"reference"}
    with pytest.raises(UserError, match="name a model of its own with --role reference=PATH"):
        LocalEngine(load_tiny(tiny_model, lora=LoRA(rank=2)), recipe)


# What is refused before the run ----------------------------------------------------------------------------------------


def refused(tmp_path: Path, model: Path, task: dict[str, str], recipe: Recipe, **settings: Any) -> str:
    with pytest.raises(UserError) as error:
        run(tiny_run(tmp_path / "run", model, task, recipe, **settings), quiet=True)
    assert not (tmp_path / "run").exists()
    return str(error.value)


def test_a_role_that_nobody_fills(
    tiny_model: Path, experts: dict[str, Path], task: dict[str, str], tmp_path: Path
) -> None:
    def said(recipe: Recipe, **settings: Any) -> str:
        return refused(tmp_path, tiny_model, task, recipe, **settings)

    one = {"old-expert": str(experts["old-expert"])}
    assert said(two_experts(), roles=one).startswith(
        "two-experts reads a model in the role 'critic.v2': name its model with --role critic.v2=PATH, "
    )
    typo = named(experts) | {"old_expert": str(experts["old-expert"])}
    assert "reads no model in the role 'old_expert'; it reads old-expert" in said(two_experts(), roles=typo)
    assert "'reference'; it reads none" in said(grpo(group_size=4, kl_coef=0.0), roles={"reference": "x"})
    assert "'previous'; it reads reference" in said(grpo(group_size=4), roles={"previous": "x"})
    assert "name its model with --teacher" in said(kdrl(group_size=4))
    assert "name two models" in said(kdrl(group_size=4), teacher="a", roles={"teacher": "b"})
    with pytest.raises(UserError, match="hand it over in `roles`"):
        LocalEngine(load_tiny(tiny_model), two_experts())


def test_a_role_that_reads_other_tokens(
    tiny_model: Path, experts: dict[str, Path], task: dict[str, str], tmp_path: Path
) -> None:
    other = load_tiny(experts["critic.v2"], "float32")
    other.tokenizer.add_tokens(["<|more|>"])
    other.model.resize_token_embeddings(len(other.tokenizer))
    other.save(tmp_path / "other")
    roles = {"old-expert": str(experts["old-expert"]), "critic.v2": str(tmp_path / "other")}
    said = refused(tmp_path, tiny_model, task, two_experts(), roles=roles)
    assert said.startswith(
        f"--role critic.v2={tmp_path / 'other'}: its vocabulary (103 tokens, 103 embedded) is not that of"
    )


def test_roles_on_the_command_line(
    command: Any, tiny_model: Path, experts: dict[str, Path], task: dict[str, str], tmp_path: Path
) -> None:
    line = ["train", "grpo", "--model", tiny_model, "--task", task["task"], "--judge", task["judge"], "--steps", 1]
    line += ["--recipe.source.size", 4, "--batch", 8, "--max-tokens", 8, "--eval.samples", 0, "--eval.prompts", 2]
    said: Said = command(*line, "--out", "a", "--role", f"reference={experts['old-expert']}")
    assert said.code == 0, said.err
    assert f"reference: {experts['old-expert']}" in (tmp_path / "a" / "config.yaml").read_text()
    [row] = lines(tmp_path / "a" / "metrics.jsonl")[1:]
    assert row["kl/ref"] > 0.1, "before the first step the policy is not its reference"
    said = command(*line, "--out", "b", "--role", "reference")
    assert said.code == 2 and "expected NAME=VALUE, not 'reference'" in " ".join(said.err.split())
    said = command(*line, "--out", "b", "--role", "one=a", "--role", "two=b")
    assert said.code == 2 and "reads no model in the role" in said.err
