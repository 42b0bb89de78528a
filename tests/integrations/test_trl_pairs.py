"""Losses and gradients of preference recipes are those of TRL's trainers, on the same model and the same pairs."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from policyopt.engine.local.engine import LocalEngine
from policyopt.models.load import Policy
from policyopt.objective import credit
from policyopt.recipe import Recipe
from policyopt.rows import Batch, make_batch
from tests.integrations.trl_recipes import CPO, DPO, KTO, MISSING, ORPO, Same
from tests.tiny import load_tiny

trl = pytest.importorskip("trl", reason="needs TRL (pip install 'policyopt[bench]')")

Ids = tuple[list[int], list[int], list[int]]
"""Prompt, chosen and rejected response of a pair."""
PAIRS = 5
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def pairs() -> list[Ids]:
    """Random ids of unlike lengths; prompts of one token, all of which TRL's ORPO trains on but the first."""
    g = torch.Generator().manual_seed(3)

    def some(n: int) -> list[int]:
        return torch.randint(6, 90, (n,), generator=g).tolist()

    return [(some(1), some(length), some(other)) for length, other in [(4, 7), (3, 3), (9, 2), (1, 5), (6, 4)]]


def rows(ids: list[Ids], mismatched: bool = False) -> Batch:
    """The pairs as a source of given texts makes them, the chosen one before the rejected one; ``mismatched``: behind them every
    prompt with the text of the row before, as TRL's KTO has it within a batch."""
    texts = [(prompt, said) for prompt, *sides in ids for said in sides]
    others = [(texts[i][0], texts[i - 1][1]) for i in range(len(texts))] if mismatched else []
    chosen = torch.tensor([1.0, 0.0] * len(ids) + [0.0] * len(others))
    whole = [*texts, *others]
    longest, n = max(len(said) for _, said in whole), len(whole)
    mask = torch.tensor([[float(t < len(said)) for t in range(longest)] for _, said in whole])
    return make_batch(
        mask=mask,
        tokens=torch.tensor([said + [0] * (longest - len(said)) for _, said in whole]),
        prompt=torch.tensor([prompt for prompt, _ in whole]),
        prompt_mask=torch.ones(n, 1),
        group=torch.arange(len(ids)).repeat_interleave(2).repeat(1 + mismatched),
        origin=torch.tensor([0] * len(texts) + [1] * len(others)),
        truncated=torch.zeros(n), budget=torch.full((n,), longest), version=torch.zeros(n).long(),
        reward=chosen, chosen=chosen, temperature=torch.ones(n), old_logp=torch.zeros_like(mask),
    )  # fmt: skip


def models(folder: Path) -> tuple[Policy, Policy]:
    """A policy, and a reference that is not far from it."""
    policy, reference = (load_tiny(folder, dtype="float32") for _ in range(2))
    g = torch.Generator().manual_seed(3)  # mismatched texts have a log-ratio above 0, so that KTO's point is no 0
    with torch.no_grad():
        for p in reference.model.parameters():
            p += 0.1 * p.std(unbiased=False) * torch.randn(p.shape, generator=g)
    return policy, reference


def gradient(model: Any) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def ours(recipe: Recipe, folder: Path, batch: Batch) -> tuple[float, Tensor]:
    """Loss and gradient as a run has them: models, packed rows, chunks of the head, parts."""
    policy, reference = models(folder)
    engine = LocalEngine(policy, recipe, {"reference": reference} if "reference" in recipe.roles else {})
    batch = credit(recipe, engine.prepare(engine.annotate(batch, recipe), recipe))
    report = engine.gradient(recipe, batch)
    return report.loss, gradient(policy.model)


@dataclasses.dataclass
class Theirs:
    """A trainer of TRL on the same model, and the batch that its collator makes."""

    trainer: Any
    batch: dict[str, Any]
    model: Any

    def __call__(self) -> tuple[float, Tensor]:
        loss = self.trainer.compute_loss(self.model, self.batch)
        loss.backward()
        return float(loss.detach()), gradient(self.model)


def arguments(config: Any, out: Path, given: dict[str, Any]) -> Any:
    return config(
        output_dir=str(out), per_device_train_batch_size=2 * PAIRS, max_length=None, gradient_checkpointing=False,
        bf16=False, use_cpu=True, report_to="none", disable_tqdm=True, **given,
    )  # fmt: skip


def dpo(given: dict[str, Any], folder: Path, out: Path) -> Theirs:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    class Exact(DPOTrainer):
        """The ids are given: nothing is left to tokenize."""

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

    policy, reference = models(folder)
    data = [{"prompt_ids": a, "chosen_ids": b, "rejected_ids": c} for a, b, c in pairs()]
    trainer = Exact(
        model=policy.model, ref_model=reference.model, args=arguments(DPOConfig, out, given),
        train_dataset=Dataset.from_list(data), processing_class=policy.tokenizer,
    )  # fmt: skip
    return Theirs(trainer, trainer.data_collator(data), trainer.model)


def kto(given: dict[str, Any], folder: Path, out: Path) -> Theirs:
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    class Exact(KTOTrainer):
        """The ids are given, and so is the text that stands for each prompt's mismatch."""

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

    policy, reference = models(folder)
    data = [
        {"prompt_ids": prompt, "completion_ids": said, "label": side == 0}
        for prompt, *sides in pairs()
        for side, said in enumerate(sides)
    ]
    said = [row["completion_ids"] for row in data]
    data = [row | {"KL_completion_ids": other} for row, other in zip(data, [said[-1], *said[:-1]], strict=True)]
    trainer = Exact(
        model=policy.model, ref_model=reference.model, args=arguments(KTOConfig, out, given),
        train_dataset=Dataset.from_list(data), processing_class=policy.tokenizer,
    )  # fmt: skip
    return Theirs(trainer, trainer.data_collator(data), trainer.model)


def without_reference(kind: str) -> Callable[[dict[str, Any], Path, Path], Theirs]:
    """The experimental trainers, which tokenize what they are given: their loss takes a batch of ids all the same."""

    def made(given: dict[str, Any], folder: Path, out: Path) -> Theirs:
        from datasets import Dataset
        from trl.experimental import cpo as cpo_module
        from trl.experimental import orpo as orpo_module

        config, trainer_class = {
            "cpo": lambda: (cpo_module.CPOConfig, cpo_module.CPOTrainer),
            "orpo": lambda: (orpo_module.ORPOConfig, orpo_module.ORPOTrainer),
        }[kind]()
        policy, _ = models(folder)
        data = Dataset.from_list([{"prompt": "1+1", "chosen": "2", "rejected": "3"}])
        trainer = trainer_class(
            model=policy.model, args=arguments(config, out, given), train_dataset=data,
            processing_class=policy.tokenizer,
        )  # fmt: skip
        return Theirs(trainer, sides(pairs()), trainer.model)

    return made


def sides(ids: list[Ids]) -> dict[str, Tensor]:
    """Pairs as the collator of TRL's experimental trainers pads them."""
    out = {}
    for at, side in ((1, "chosen"), (2, "rejected")):
        texts = [(pair[0], pair[at]) for pair in ids]
        longest = max(len(a) + len(b) for a, b in texts)
        whole = [a + b + [0] * (longest - len(a) - len(b)) for a, b in texts]
        out[f"{side}_input_ids"] = torch.tensor(whole)
        out[f"{side}_attention_mask"] = torch.tensor(
            [[int(t < len(a) + len(b)) for t in range(longest)] for a, b in texts]
        )
        out[f"{side}_labels"] = torch.tensor(
            [
                [x if len(a) <= t < len(a) + len(b) else -100 for t, x in enumerate(row)]
                for row, (a, b) in zip(whole, texts)
            ]
        )
    return out


TRAINERS = {"dpo": dpo, "kto": kto, "cpo": without_reference("cpo"), "orpo": without_reference("orpo")}


def cases() -> Iterator[Any]:
    for trainer, table in {"dpo": DPO, "kto": KTO, "cpo": CPO, "orpo": ORPO}.items():
        for name, same in table.items():
            yield pytest.param(trainer, same, id=f"{trainer}-{name}")


@pytest.mark.parametrize(("trainer", "same"), cases())
def test_loss_and_gradient_are_those_of_trl(trainer: str, same: Same, tiny_model: Path, tmp_path: Path) -> None:
    loss, grad = ours(same.recipe(), tiny_model, rows(pairs(), same.mismatched))
    theirs, wanted = TRAINERS[trainer](same.given, tiny_model, tmp_path)()
    assert loss == pytest.approx(theirs, rel=1e-5, abs=1e-5)
    assert grad.norm() > 1e-3
    torch.testing.assert_close(grad / wanted.norm(), wanted / wanted.norm(), **CLOSE)


def test_every_loss_of_trl_is_told() -> None:
    known = set(re.findall(r'loss_type == "(\w+)"', inspect.getsource(trl.DPOTrainer)))
    given = [same.given.get("loss_type", "sigmoid") for same in DPO.values()]
    found = {kind for kinds in given for kind in ([kinds] if isinstance(kinds, str) else kinds)}
    assert found | MISSING == known and not found & MISSING
