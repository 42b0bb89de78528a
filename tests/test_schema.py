"""Columns: what they are called, who may fill them, and what is said of names that are none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from policyopt import schema
from policyopt.errors import UserError
from policyopt.items import Verdict, judge
from policyopt.lens.check.parts import faults
from policyopt.lens.random_batch import declared, random_batch
from policyopt.methods.clip.stablereinforce import Consistency
from policyopt.methods.group.grpo import StepNormalise, grpo
from policyopt.part import Advantage, part
from policyopt.registry import Method, methods
from policyopt.rows import Batch
from policyopt.sources.draw import Group
from policyopt.sources.program import Response
from policyopt.training.rows import check_filled, to_batch, with_steps
from tests.batches import EVERY_METHOD


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    with schema.forgotten():
        yield


def asking(*names: str) -> Advantage:
    """An advantage that needs columns."""

    @part
    class Asking(Advantage):
        needs: ClassVar[frozenset[str]] = frozenset(names)

        def __call__(self, batch: Batch) -> Tensor:
            return 0 * batch.mask + sum(0 * getattr(batch, name).sum() for name in names)

    return Asking()


# Names ---------------------------------------------------------------------------------------------------------------


def test_every_column_says_what_it_is_and_how_a_check_makes_one() -> None:
    made_later = {"true_length", "token_reward", "advantage", "returns", "share", "support", "support_ids", "routes"}
    for column in (c for c in schema.columns() if not c.file):
        assert column.sentence and column.sentence[-1] != "."
        assert (column.invent is None) == (column.name in made_later), column.name
        assert column.filled_by not in ("critic", "memory", "program") or column.advice, column.name
        assert isinstance(column.absent, str) <= (column.absent in {c.name for c in schema.columns()})
        assert all(schema.find(name) for name in column.brings)


def test_the_table_in_the_documents_is_that_of_the_schema() -> None:
    assert schema.table() in (Path(__file__).parents[1] / "docs" / "columns.md").read_text()


def test_no_column_hides_what_else_a_batch_has() -> None:
    own = {name for name in vars(Batch) if name[0] != "_"}
    assert own - {"mask"} == schema._METHODS


@EVERY_METHOD
def test_methods_need_columns_that_there_are(method: Method) -> None:
    recipe = method()
    assert all(schema.find(name) for name in recipe.needs | recipe.provides)


def test_short_names_are_those_of_their_roles() -> None:
    assert [schema.canonical(f"logp_of[{role}]") for role in ("reference", "teacher", "previous", "coach")] == [
        "ref_logp", "teacher_logp", "prev_logp", "logp_of[coach]",
    ]  # fmt: skip
    assert schema.find("logp_of[reference]") is schema.find("ref_logp")
    assert schema.role_of("ref_logp") == "reference" and schema.role_of("logp_of[coach]") == "coach"
    assert schema.role_of("reward") is None
    batch = random_batch()
    other = batch.replace(**{"logp_of[reference]": batch.old_logp})
    assert other.ref_logp is other.logp_of("reference") is getattr(other, "logp_of[reference]") is batch.old_logp
    recipe = grpo(kl_coef=0.0).replace(advantage=asking("logp_of[reference]", "logp_of[coach]"))
    assert recipe.needs >= {"ref_logp", "logp_of[coach]"} and recipe.roles >= {"reference", "coach"}


def test_a_misspelt_need_is_named_with_its_nearest_column() -> None:
    with pytest.raises(
        ValueError, match=r"advantage \(Asking\) needs 'corect': no column of a batch has this name; nearest: correct"
    ):
        grpo().replace(advantage=asking("corect"))
    (said,) = faults(asking("corect"))
    assert said.startswith("Asking needs 'corect': no column of a batch has this name; nearest: correct")
    for name in ("logp_of", "logp_of[]", "logp[x]", "component[x"):
        with pytest.raises(ValueError, match="no column of a batch has this name"):
            grpo().replace(advantage=asking(name))


def test_a_need_that_the_recipe_does_not_fill_is_refused_with_what_would() -> None:
    wanted = {
        "value": "set critic", "returns": "set critic", "history": "set memory", "baseline_reward": "GroupWithGreedy",
        "turn": "numbers turns",
    }  # fmt: skip
    for name, advice in wanted.items():
        with pytest.raises(ValueError, match=rf"needs '{name}', which nothing provides: .*{advice}"):
            grpo().replace(advantage=asking(name))


def test_a_need_that_the_judge_does_not_fill_is_refused_with_what_would() -> None:
    recipe = grpo().replace(advantage=StepNormalise())
    with pytest.raises(
        UserError, match=r"advantage \(StepNormalise\) needs 'step_reward', which the judge 'math' does"
    ):
        check_filled(recipe, "math", frozenset({"correct"}))
    check_filled(recipe, "mine.py:score", frozenset({"step_reward"}))
    asked = grpo().replace(advantage=asking("component[fluency]"))
    with pytest.raises(UserError, match=r"@policyopt\.judge\(columns=\('component\[fluency\]',\)\)"):
        check_filled(asked, "math", frozenset())
    check_filled(grpo().replace(shape=(Consistency(),)), "math", frozenset())  # it does without


# Columns of one's own ------------------------------------------------------------------------------------------------


def declare(file: str, name: str = "tone", **changes: Any) -> schema.Column:
    found: dict[str, Any] = {"schema": schema}
    given = {"sentence": "how it sounds", "filled_by": "judge"} | changes
    exec(compile(f"c = schema.column({name!r}, **given)", file, "exec"), found | {"given": given}, found)
    return found["c"]


def test_declaring_a_column_again_changes_nothing_and_another_one_of_its_name_is_refused() -> None:
    assert declare("a.py") == declare("a.py") == declare("b.py")
    with pytest.raises(UserError, match=r"column 'tone' of c\.py: b\.py declares another one .*\[N\]: how it sounds"):
        declare("c.py", axes="NT")
    assert declare("b.py", axes="NT").axes == "NT", "the file itself may think better of it"
    with pytest.raises(UserError, match="the library has another one"):
        declare("a.py", "reward")
    for name in ("a b", "_x", "stat", "records", "component"):
        with pytest.raises(UserError, match="take a name of letters"):
            declare("a.py", name)
    with pytest.raises(UserError, match="filled_by is 'me', expected one of program, judge, part"):
        declare("a.py", "mood", filled_by="me")


def test_declaring_a_column_or_a_judge_imports_no_torch() -> None:
    code = (
        "import policyopt as po, sys\npo.column('tone', sentence='x', filled_by='judge')\npo.judge(columns=('tone',))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_judge_says_what_it_fills() -> None:
    @judge(columns=("tone",))
    def score(prompt: str, response: str, answer: str) -> float:
        return 1.0

    assert score.columns == ("tone",) and score("", "", "") == 1.0  # type: ignore[attr-defined]


def test_a_check_invents_what_is_declared_and_what_is_named() -> None:
    plain = random_batch(seed=2)
    declare("a.py", axes="NT", invent=lambda s: s.uniform(s.n, s.width) + 3)
    declare("a.py", "count", axes="NK", dtype="int")
    batch = random_batch(seed=2, needs={"logp_of[coach]", "component[fluency]", "entropy"})
    for name, x in plain.columns().items():
        assert torch.equal(x.nan_to_num(), getattr(batch, name).nan_to_num()), name
    inside = batch.mask.bool()
    assert (batch.tone[inside] >= 3).all() and not batch.tone[~inside].any()
    assert batch.count.shape == (9, 2) and not batch.count.is_floating_point()
    assert (batch.logp_of("coach")[inside] < 0).all() and batch.component("fluency").shape == (9,)
    less = declared(batch, {"tone", "component[fluency]"})
    assert less.tone is not None and less.count is None and less.entropy is None
    assert getattr(less, "logp_of[coach]") is None and "fluency" in less.members("component")


# From responses and verdicts -----------------------------------------------------------------------------------------


def rows(*said: dict[str, Any], **columns: list[Any]) -> tuple[list[Response], list[Verdict]]:
    """Responses of two and three tokens in turn."""
    responses = [
        Response([5] * (2 + i % 2), [-1.0] * (2 + i % 2), [0.5] * (2 + i % 2), "eos") for i in range(len(said))
    ]
    for name, values in columns.items():
        for r, x in zip(responses, values, strict=True):
            r.columns |= {} if x is None else {name: x}
    return responses, [Verdict(1.0, True, True, "", parts=parts) for parts in said]


def batched(responses: list[Response], verdicts: list[Verdict], *needs: str) -> Batch:
    return to_batch([(1,)] * len(responses), responses, verdicts, [0] * len(responses), 9, needs=frozenset(needs))


def test_programs_and_judges_fill_columns() -> None:
    declare("a.py")
    declare("a.py", "depth", axes="NT", filled_by="program", absent=-1)
    batch = batched(*rows({"tone": 0.5, "kind": 0.25}, {}, depth=[None, [1.0, 2.0, 3.0]]))
    assert batch.tone.tolist() == [0.5, 0.0] and batch.depth.tolist() == [[-1, -1, 0], [1, 2, 3]]
    assert set(batch.members("component")) == {"kind"}
    assert batch.component("tone") is batch.tone, "whoever adds up components finds it too"
    assert batched(*rows({}, {})).tone is None
    assert batched(*rows({}, {}), "tone", "component[kind]").tone.tolist() == [0, 0]
    batch = batched(*rows({"consistency": -1.0}, {}, turn=[None, None]))
    assert batch.consistency.tolist() == [-1, 0] and batch.turn is None
    responses, verdicts = rows({}, {})
    responses[1].turn = 2
    assert batched(responses, verdicts).turn.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("said", "given", "words"),
    [
        ({"kind": [1.0]}, {}, "gives a list as its part 'kind', which is no column"),
        ({"tone": [1.0]}, {}, "'tone' was given a list of 1, expected one number"),
        ({"step_reward": 1.0}, {}, "'step_reward' was given one number, expected a list"),
        ({}, {"depth": [[1.0]]}, "'depth' was given a list of 1, expected one number for each of 2 tokens"),
        ({}, {"toone": [1.0]}, "fills the column 'toone', which is none that a program may fill; nearest: tone"),
        ({}, {"reward": [1.0]}, "fills the column 'reward', which is none that a program may fill"),
    ],
)
def test_what_is_no_column_is_refused(said: dict[str, Any], given: dict[str, list[Any]], words: str) -> None:
    declare("a.py")
    declare("a.py", "depth", axes="NT", filled_by="program")
    with pytest.raises(UserError, match=words):
        batched(*rows(said, **given))


def test_rewards_of_steps_belong_to_lines_or_to_ends_that_the_judge_gives() -> None:
    responses, verdicts = rows({"step_reward": [0.5]}, {"step_reward": [0.0, 1.0]}, {})
    batch = with_steps(batched(responses, verdicts), responses, verdicts, [[1], [0, 2], [1]])
    assert batch.step_end.tolist() == [[1, -1], [0, 2], [-1, -1]], "nobody has judged the last one"
    assert StepNormalise()(batch.replace(group=torch.tensor([0, 0, 0]))).isfinite().all()
    with pytest.raises(UserError, match="1 steps of a response are rewarded, and it has 2"):
        with_steps(batched(responses, verdicts), responses, verdicts, [[0, 1], [0, 2], [1]])
    responses, verdicts = rows({"step_reward": [0.5], "step_end": [0]})
    assert with_steps(batched(responses, verdicts), responses, verdicts, [[1]]).step_end.tolist() == [[0]]
    responses, verdicts = rows({}, {})
    batch = with_steps(batched(responses, verdicts, "step_reward"), responses, verdicts, [[1], [0, 2]])
    assert StepNormalise()(batch).tolist() == [[0, 0, 0], [0, 0, 0]]
    batch = with_steps(batched(responses, verdicts), responses, verdicts, [[1], [0, 2]])
    assert batch.step_end.tolist() == [[1, -1], [0, 2]], "lines alone"


def test_programs_that_promise_a_column_satisfy_who_needs_it() -> None:
    @part
    class Turns(Group):
        provides: ClassVar[frozenset[str]] = frozenset({"turn"})

    assert "turn" in grpo().replace(source=Turns(), advantage=asking("turn")).provides
    assert "baseline_reward" in methods()["remax"]().provides
