"""Columns that a file outside the package declares: filled by its judge, its program and its part, they go wherever the
columns of the library go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from policyopt.errors import UserError
from policyopt.methods.group.grpo import StepNormalise, grpo
from policyopt.qualified import forgotten
from policyopt.recipe import Recipe, Update
from policyopt.training.config import Checkpoints, Evaluation, TrainConfig
from policyopt.training.run import run
from tests.commands import Said
from tests.runs import assert_same_end, left_behind, lines, power_cut, tiny_run
from tests.tiny import write_task

OWN = '''
"""How sure a response sounds decides how much is learnt from it."""

from typing import ClassVar

import policyopt as po
from policyopt.rows import masked
from policyopt.methods.group.grpo import grpo
from policyopt.groups import group_mean
from policyopt.part import Advantage, Filter, Shape, Weight, part
from policyopt.registry import method
from policyopt.sources.draw.group import Group

po.column("sureness", sentence="how sure the response sounds, 0 to 1", filled_by="judge")
po.column("depth", axes="NT", sentence="how far a token lies in, 0 to 1", filled_by="program")
po.column("halves", axes="NK", sentence="lengths of both halves", filled_by="judge", absent=-1,
          invent=lambda s: s.uniform(s.n, 2))
po.column("margin", sentence="sureness above the mean of the group", filled_by="part")
SEEN = []


def sureness(text):
    return sum(c.islower() for c in text) / max(1, len(text))


@po.judge(columns=("sureness", "halves"))
def score(prompt, response, answer):
    half = len(response) // 2
    parts = {"sureness": sureness(response), "halves": [half, len(response) - half], "length": len(response)}
    return {"score": sureness(response), "correct": len(response) % 2 == 0, "parts": parts}


@part
class Deep(Group):
    """Says of each token how far it lies in."""

    provides: ClassVar = frozenset({"depth"})

    async def draw(self, question, context):
        group = await super().draw(question, context)
        for r in group:
            r.columns["depth"] = [i / len(r.tokens) for i in range(len(r.tokens))]
        return group


@part
class Margin(Shape):
    """Makes the margin."""

    needs: ClassVar = frozenset({"sureness"})
    provides: ClassVar = frozenset({"margin"})

    def __call__(self, batch):
        return batch.replace(margin=batch.sureness - group_mean(batch.sureness, batch.group))


@part
class Sounding(Filter):
    """Drops what does not sound at all."""

    needs: ClassVar = frozenset({"sureness"})

    def __call__(self, batch):
        return batch.sureness > 0.02


@part
class Sure(Advantage):
    """The margin, more so towards the end."""

    needs: ClassVar = frozenset({"margin", "depth"})

    def __call__(self, batch):
        return batch.margin[:, None] * masked(1 + batch.depth, batch.mask)


@part
class Heard(Weight):
    """Looks at every micro-batch."""

    needs: ClassVar = frozenset({"sureness", "depth", "margin", "halves"})

    def __call__(self, log_ratio, batch):
        SEEN.append(batch)
        return 1 + (0 * log_ratio + batch.sureness[:, None]).detach()


@method()
def own(group_size: int = 4):
    """Learn from what sounds sure."""
    return grpo(kl_coef=0.0).replace(
        source=Deep(size=group_size), shape=(Margin(),), filter=(Sounding(),), advantage=Sure(), weight=(Heard(),)
    )
'''


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The file as a module; its columns are forgotten afterwards."""
    path = tmp_path_factory.mktemp("own") / "own_columns.py"
    path.write_text(OWN)
    with forgotten(path) as module:
        yield module


@pytest.fixture
def make(tmp_path: Path, tiny_model: Path, own: ModuleType) -> Callable[..., TrainConfig]:
    task = write_task(tmp_path / "task") | {"judge": f"{own.__file__}:score"}

    def of(name: str, recipe: Recipe | None = None, **changes: Any) -> TrainConfig:
        recipe = own.own().replace(update=Update(minibatches=2, replay=1)) if recipe is None else recipe
        short = {"steps": 4, "staleness": 1, "micro_batch": 3, "eval": Evaluation(every=0, prompts=2, samples=0)}
        settings = short | {"checkpoints": Checkpoints(every=1, keep=2)} | changes
        return tiny_run(tmp_path / name, tiny_model, task, recipe, **settings)

    return of


def test_columns_of_ones_own_go_through_a_whole_run(make: Callable[..., TrainConfig], own: ModuleType) -> None:
    own.SEEN.clear()
    whole = make("whole")
    run(whole, quiet=True)
    assert {len(b) for b in own.SEEN} >= {3} and max(len(b) for b in own.SEEN) == 3, "micro-batches"
    assert any(int(b.age.max()) == 1 for b in own.SEEN if b.age is not None), "replayed rows"
    for b in own.SEEN:
        assert b.records is not None and len(b.records) == len(b)
        for i, record in enumerate(b.records):
            assert float(b.sureness[i]) == pytest.approx(own.sureness(record["response"]))
            assert b.halves[i].sum() == float(b.component("length")[i]) == len(record["response"])
            n = int(b.mask[i].sum())
            torch.testing.assert_close(b.depth[i, :n], torch.arange(n) / n)
            assert not b.depth[i, n:].any()
    assert whole.out is not None
    assert all("component/sureness" in row for row in lines(whole.out / "metrics.jsonl") if row["step"])
    broken = make("broken")
    with power_cut(after=2):
        run(broken, quiet=True)
    run(broken, resume=broken.out, quiet=True)
    assert broken.out is not None
    assert_same_end(broken.out, left_behind(whole.out))


def test_a_recipe_is_refused_where_the_judge_does_not_fill_what_it_needs(make: Callable[..., TrainConfig]) -> None:
    config = make("refused", judge="exact")
    with pytest.raises(
        UserError, match=r"needs 'sureness', which the judge 'exact' does not give: .*@policyopt\.judge"
    ):
        run(config, quiet=True)
    assert config.out is not None and not config.out.exists()


def test_process_supervision_without_a_judge_of_steps_is_refused(make: Callable[..., TrainConfig]) -> None:
    config = make("steps", grpo(group_size=4).replace(advantage=StepNormalise()))
    with pytest.raises(
        UserError, match=r"advantage \(StepNormalise\) needs 'step_reward', which the judge '.*own_columns"
    ):
        run(config, quiet=True)


def test_a_recipe_is_refused_where_no_part_and_no_program_fills_what_it_needs(own: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"advantage \(Sure\) needs 'margin', which nothing provides: add a part with"):
        own.own().replace(shape=())
    with pytest.raises(ValueError, match=r"needs 'depth', which nothing provides: take a rollout program"):
        own.own().replace(source=grpo().source)


def test_check_invents_columns_of_ones_own(command: Callable[..., Said], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN.replace("def own(", "def mine("))
    said = command("check", "mine.py")
    assert said.code == 0, said
