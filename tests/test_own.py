"""Code of one's own stands wherever a method's name does, and goes on from anywhere, to the bit."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import policyopt as po
from policyopt import parts, qualified, schema
from policyopt.errors import UserError
from policyopt.methods.group.grpo import grpo
from policyopt.own import resolve
from policyopt.part import Advantage, part
from policyopt.qualified import part_class, part_name
from policyopt.recipe import Recipe, recipe_from_dict
from policyopt.registry import methods
from policyopt.training.config import config_from_yaml
from tests.commands import QUICK, Said, lines, write_rows
from tests.runs import assert_same_end, left_behind, power_cut

EXAMPLE = Path(__file__).parent.parent / "examples" / "my_method.py"

HEAD = """
from policyopt.methods.group.grpo import grpo as library
from policyopt.part import Advantage, part
from policyopt.recipe import Recipe
from policyopt.registry import method
"""
SEVERAL = f"""{HEAD}
@method(parent=library)
def grpo(kl_coef: float = 0.5):
    "Another grpo."
    return library(kl_coef=kl_coef)

@method(parent=grpo)
def heavier(kl_coef=2.0):
    "A child of it."
    return grpo(kl_coef)

def plain(group_size: int = 4) -> Recipe:
    return library(group_size=group_size, kl_coef=0.0)

composed = library(kl_coef=0.25)
number = 3

def without(size): return library()
def nothing(): return 1
"""


@part
class Normalise(Advantage):
    """Another class of that name, in an importable module."""

    def __call__(self, batch: Any) -> Any:
        return batch.mask


def _forget() -> None:
    """As in a process that has not seen the files."""
    for _, module in qualified._LOADED.values():
        sys.modules.pop(module.__name__, None)
    qualified._LOADED.clear()


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What files declare is of one test."""
    with schema.forgotten():
        yield
    _forget()


@pytest.fixture
def own(tmp_path: Path, command: Callable[..., Said]) -> Path:
    """The example, copied into an empty folder, which is the current one, with questions beside it."""
    shutil.copy(EXAMPLE, tmp_path / "my_method.py")
    write_rows(
        tmp_path / "data.jsonl", ({"prompt": f"{'ab' * (i % 3)}{i}?", "answer": "aeiou"[i % 5]} for i in range(24))
    )
    return tmp_path


def write(text: str) -> str:
    Path("several.py").write_text(text)
    return "several.py"


# The example -----------------------------------------------------------------------------------------------------------


def test_the_example_is_one_page_that_check_and_explain_take(own: Path, command: Callable[..., Said]) -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 80
    checked = command("check", "my_method.py")
    assert checked.code == 0 and "nothing is broken" in checked.out, checked
    assert checked.err == "running my_method.py\n"
    explained = command("explain", "my_method.py", "--vs", "grpo")
    assert explained.code == 0, explained
    assert "strength" in explained.out and "Fade" in explained.out
    assert "parent grpo" in explained.out and "how sure the response sounds" in explained.out
    assert command("explain", "grpo", "--vs", "my_method.py:sure_grpo").code == 0


def test_a_run_of_it_goes_on_from_another_directory_to_the_bit(
    own: Path, command: Callable[..., Said], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = [
        "train", "my_method.py", "--task", "data.jsonl", "--judge", "my_method.py:sure", "--model", tiny_model,
        "--steps", 4, "--checkpoints.every", 1, "--eval.every", 0, *QUICK,
    ]  # fmt: skip
    whole = command(*line, "--strength", 0.75)
    assert whole.code == 0, whole
    out = own / "runs" / "sure-grpo-data-seed0"
    saved = yaml.safe_load((out / "config.yaml").read_text())["recipe"]
    assert saved["advantage"] == {"part": f"{own}/my_method.py:Normalise", "strength": 0.75, "eps": 1e-6}
    assert saved["controllers"][0]["part"] == f"{own}/my_method.py:Fade"
    assert all("component/sureness" in row for row in lines(out / "metrics.jsonl") if row["step"])

    with power_cut(after=2):
        command(*line, "--strength", 0.75, "--out", "broken")
    elsewhere = own / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    _forget()
    resumed = command("train", "--resume", own / "broken")
    assert resumed.code == 0, resumed
    assert_same_end(own / "broken", left_behind(out))

    again = command("train", "--config", out / "config.yaml", "--out", "again", "--steps", 4)
    assert again.code == 0, again
    assert_same_end(elsewhere / "again", left_behind(out))
    named = command("train", "../my_method.py", "--config", out / "config.yaml", "--out", "named", "--steps", 1)
    assert named.code == 0, named
    undone = command("train", "../my_method.py", "--resume", own / "broken", "--strength", 2)
    assert "has recipe.advantage.strength = 0.75, and a hyper-parameter on the line makes it 2.0" in undone.words


def test_training_takes_names_in_python_too(own: Path, tiny_model: Path) -> None:
    settings: dict[str, Any] = {
        "model": str(tiny_model), "task": "data.jsonl", "judge": "my_method.py:sure", "steps": 1, "batch": 8,
        "max_tokens": 8, "device": "cpu", "quiet": True,
    }  # fmt: skip
    result = po.train("my_method.py:sure_grpo", **settings)
    assert result.out == Path("runs/sure-grpo-data-seed0")
    composed = grpo(kl_coef=0.0, group_size=4).replace(advantage=Normalise(), name="all alike/1")
    assert po.train(composed, **settings).out == Path("runs/all-alike-1-data-seed0")
    config = config_from_yaml(Path("runs/all-alike-1-data-seed0/config.yaml"))
    assert config.recipe == composed and type(config.recipe.advantage) is Normalise
    assert po.train(composed, resume="runs/all-alike-1-data-seed0", **settings).summary["method"] == "all alike/1"


# Names -----------------------------------------------------------------------------------------------------------------


def test_what_a_name_may_be(own: Path) -> None:
    write(SEVERAL)
    library = dict(methods())
    mine = resolve("several.py:grpo")
    assert (mine.name, mine.family, mine.parent) == ("grpo", "own", "grpo")
    assert mine() == grpo(kl_coef=0.5) and mine(kl_coef=1.0) == grpo(kl_coef=1.0)
    child = resolve("several.py:heavier")
    assert child.base is not None and child.base() == grpo(kl_coef=0.5), "the parent is the file's, not the library's"
    assert methods() == library and resolve("grpo") is library["grpo"]
    plain = resolve("several.py:plain")
    assert (plain.name, plain().name, plain(group_size=2)) == ("plain", "plain", grpo(group_size=2, kl_coef=0.0))
    assert resolve("several.py:composed")() == grpo(kl_coef=0.25)
    assert resolve("several.py:composed")().name == "composed"
    assert resolve("policyopt.methods.group.grpo:grpo") is po.get_method("grpo")
    assert resolve("my_method.py").name == "sure-grpo"
    Path("one.py").write_text("from policyopt.methods import grpo\nmine = grpo(kl_coef=3.0)\n")
    assert po.get_method("one.py")() == grpo(kl_coef=3.0)
    Path("bare.yaml").write_text(yaml.safe_dump(grpo(kl_coef=3.0).replace(name="custom").to_dict()))
    assert (resolve("bare.yaml")(), resolve("bare.yaml").name) == (grpo(kl_coef=3.0), "bare")
    Path("run.yaml").write_text(yaml.safe_dump({"steps": 3, "recipe": grpo().replace(name="its own").to_dict()}))
    assert (resolve("run.yaml")(), resolve("run.yaml").name) == (grpo(), "its own")


def test_a_module_of_the_current_folder(own: Path, command: Callable[..., Said]) -> None:
    package = own / f"package{abs(hash(own))}"
    package.mkdir()
    (package / "module.py").write_text(SEVERAL)
    name = f"{package.name}.module"
    assert resolve(f"{name}:plain").name == "plain"
    assert command("check", f"{name}:plain").code == 0
    (package / "broken.py").write_text("x = 1\ny = 1 / 0\n")
    said = command("explain", f"{package.name}.broken:plain")
    assert said.code == 2 and "broken.py, line 2: ZeroDivisionError: division by zero" in said.words


def test_options_of_ones_own_and_another_grpo_beside_the_librarys(own: Path, command: Callable[..., Said]) -> None:
    write(SEVERAL)
    assert "--group-size INT" in command("train", "several.py:plain", "--help").out
    said = command("train", "several.py:heavier", "--kl-coef", "x")
    assert said.code == 2 and "--kl-coef" in said.words
    told = command("explain", "several.py:grpo")
    assert told.code == 0 and "grpo (own)" in told.out
    assert command("check", "several.py:composed").code == 0


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        (None, "several.py", "there is no file several.py"),
        (None, "several.yaml", "there is no file several.yaml"),
        (None, "no.such.module:x", "no module 'no' in the current folder or the installed packages"),
        (SEVERAL, "several.py", "several.py has several methods: take one of several.py:grpo, several.py:heavier"),
        (SEVERAL, "several.py:plian", "several.py:plian: nothing is called 'plian' there; nearest: plain"),
        (
            SEVERAL,
            "several.py:number",
            "several.py:number is a int; expected a function under @method, a function that",
        ),
        (SEVERAL, "several.py:without", "the argument 'size' has no default; methods take keywords with defaults"),
        (SEVERAL, "several.py:nothing", "several.py:nothing returns 1, expected a Recipe"),
        (
            "x = 1\n",
            "several.py",
            "several.py has no method: a function under @method, one that returns a Recipe, or a",
        ),
        (
            "x = 1\n\ny = x / 0\n",
            "several.py:x",
            "several.py cannot be imported: line 3: ZeroDivisionError: division by",
        ),
        ("x = 1\ndef f(:\n", "several.py:x", "several.py cannot be imported: line 2: SyntaxError: invalid syntax"),
        (None, "my_metod", "no method is called 'my_metod'; nearest:"),
    ],
)
def test_what_a_name_may_not_be(
    own: Path, command: Callable[..., Said], text: str | None, name: str, said: str
) -> None:
    if text is not None:
        write(text)
    for line in (["train", name], ["explain", "grpo", "--vs", name], ["check", name]):
        if line[0] == "check" and name == "several.py" and text is not None:
            continue  # it takes all of a file
        answer = command(*line)
        assert answer.code == (1 if "returns 1" in said and line[0] == "check" else 2), line
        assert said in answer.words + " ".join(answer.out.split()), answer
        assert "Traceback" not in answer.err
    assert not Path("runs").exists()


# Parts -----------------------------------------------------------------------------------------------------------------


def test_a_part_of_ones_own_is_never_taken_for_the_librarys() -> None:
    assert part_name(parts.Normalise) == "Normalise" and part_class("Normalise") is parts.Normalise
    assert part_name(Normalise) == f"{__name__}:Normalise" and part_class(part_name(Normalise)) is Normalise
    recipe = grpo().replace(advantage=Normalise())
    assert recipe_from_dict(recipe.to_dict()) == recipe
    assert type(recipe_from_dict(recipe.to_dict()).advantage) is Normalise
    assert type(recipe_from_dict(grpo().to_dict()).advantage) is parts.Normalise


def test_a_part_of_a_file_is_read_back_from_it(own: Path) -> None:
    recipe = resolve("my_method.py")()
    written = recipe.to_dict()
    assert recipe_from_dict(written) == recipe
    _forget()
    assert recipe_from_dict(written).to_dict() == written
    (own / "my_method.py").unlink()
    _forget()
    with pytest.raises(ValueError, match=r"recipe\.advantage: there is no file .*/my_method\.py"):
        recipe_from_dict(written)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Heavier", "no part is called 'Heavier'; nearest: .*; a part of your own is written .*: my.py:Heavier"),
        ("pathlib:Path", "pathlib:Path is no part: expected a class under @part"),
        ("pathlib:Paht", "pathlib:Paht: nothing is called 'Paht' there; nearest: Path"),
        ("my_method.py:sure", "my_method.py:sure is no part"),
        ("here:f.<locals>.X", "is made inside a function and cannot be found again: define it at the top"),
    ],
)
def test_what_is_no_part(own: Path, name: str, said: str) -> None:
    data: dict[str, Any] = grpo().to_dict() | {"advantage": {"part": name}}
    with pytest.raises(ValueError, match=rf"recipe\.advantage: .*{said}"):
        recipe_from_dict(data)


def test_a_file_runs_once_and_again_when_it_has_changed(own: Path) -> None:
    name = write("print('x')\n" + SEVERAL)
    first = qualified.load_file(Path(name))
    assert qualified.load_file(Path(name).absolute()) is first
    write("changed = 1\n")
    assert qualified.lookup("several.py:changed") == 1
    assert qualified.load_file(Path(__file__)) is sys.modules[__name__], "what is imported already is not run again"


def test_check_forgets_what_a_file_declares(own: Path, command: Callable[..., Said]) -> None:
    _forget()
    assert command("check", "my_method.py").code == 0
    assert not any(path.name == "my_method.py" for path in qualified._LOADED)
    with pytest.raises(UserError, match="no part is called"):
        part_class("Fade")
    made: Recipe = resolve("my_method.py")()
    assert "sureness" in made.needs
