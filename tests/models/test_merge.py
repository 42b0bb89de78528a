"""Models merged into one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from policyopt.models.merge import merged
from tests.commands import Said

BASE = torch.tensor([1.0, 2.0, 3.0, 4.0])
A = BASE + torch.tensor([0.1, -0.4, 0.0, 0.2])
B = BASE + torch.tensor([-0.3, -0.2, 0.1, 0.0])


def one(*models: Tensor, **how: object) -> list[float]:
    found: list[float] = merged([{"w": x} for x in models], **how)["w"].tolist()  # type: ignore[arg-type]
    return found


def test_all_changes_are_the_tuned_model_and_none_are_the_first() -> None:
    assert one(BASE, A) == pytest.approx(A.tolist())
    assert one(BASE, A, keep=0.0) == BASE.tolist() == one(BASE, A, scale=0.0)


def test_of_each_tensor_the_largest_changes_are_kept_and_scaled() -> None:
    assert one(BASE, A, keep=0.5, scale=0.5) == pytest.approx([1, 1.8, 3, 4.1])


def test_changes_of_several_add_up_and_the_average_is_of_all() -> None:
    assert one(BASE, A, B) == pytest.approx([0.8, 1.4, 3.1, 4.2])
    assert one(A, B, how="average") == pytest.approx([0.9, 1.7, 3.05, 4.1])


def test_ties_leaves_out_what_goes_against_the_elected_sign() -> None:
    assert one(BASE, A, B, how="ties") == pytest.approx([1 - 0.3, 2 - 0.3, 3.1, 4.2])


def test_whole_numbers_and_precision_are_those_of_the_first() -> None:
    found = merged([{"n": torch.tensor([3]), "w": BASE.bfloat16()}, {"n": torch.tensor([4]), "w": A}])
    assert found["n"].tolist() == [3] and found["w"].dtype == torch.bfloat16


@pytest.fixture
def pair(tiny_model: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A model, and one that was made from it."""
    folders = tmp_path / "a", tmp_path / "b"
    for folder in folders:
        shutil.copytree(tiny_model, folder)
    file = folders[1] / "model.safetensors"
    save_file({name: x + 0.5 for name, x in load_file(file).items()}, file, metadata={"format": "pt"})
    return folders


def test_the_merged_folder_is_a_model(command: Callable[..., Said], pair: tuple[Path, Path], tmp_path: Path) -> None:
    said = command("merge", *map(str, pair), "--out", "c")
    assert said.code == 0 and "weights of 2 models merged (average)" in said.out
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "c")
    before = AutoModelForCausalLM.from_pretrained(pair[0]).state_dict()
    for name, x in model.state_dict().items():
        torch.testing.assert_close(x, before[name] + 0.25)
    assert (tmp_path / "c" / "tokenizer.json").read_bytes() == (pair[0] / "tokenizer.json").read_bytes()
    assert "(changes)" in command("merge", *map(str, pair), "--out", "d", "--keep", "0.25", "--scale", "0.7").out


def test_what_cannot_be_merged_is_refused_and_nothing_is_written(
    command: Callable[..., Said], pair: tuple[Path, Path], tmp_path: Path
) -> None:
    a, b = pair

    def refused(*line: str) -> str:
        said = command("merge", *line)
        assert said.code == 2 and not (tmp_path / "out").exists()
        return said.words

    assert "takes two models or more, got 1" in refused(str(a), "--out", "out")
    assert "--out: expected the folder" in refused(str(a), str(b))
    assert "leave them out, or take --how changes" in refused(
        str(a), str(b), "--out", "out", "--how", "average", "--keep", "0.5"
    )
    assert "holds no model in safetensors" in refused(str(a), str(tmp_path / "nowhere"), "--out", "out")
    assert "exists already" in command("merge", str(a), str(b), "--out", str(b)).words
    file = b / "model.safetensors"
    whole = load_file(file)
    name = min(whole)
    save_file({**whole, name: whole[name][:1].clone()}, file, metadata={"format": "pt"})
    assert "are not of one kind" in refused(str(a), str(b), "--out", "out")
    save_file({n: x for n, x in whole.items() if n != name}, file, metadata={"format": "pt"})
    assert f"{a} has {name}" in refused(str(a), str(b), "--out", "out")
    save_file({**whole, name: torch.full_like(whole[name], torch.nan)}, file, metadata={"format": "pt"})
    assert "holds NaN or infinity" in refused(str(a), str(b), "--out", "out")
