"""What a reference that stands still thinks of given texts is worked out once, and read to the bit from then on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from policyopt.engine.local.known import Known, make_room
from policyopt.models.adapters import LoRA
from policyopt.models.prompting import Prompting
from policyopt.parts.reference.following import EMA
from policyopt.recipe import Recipe
from policyopt.rows import Batch
from policyopt.training.run import run
from tests.batches import random_batch
from tests.runs import PROCESSES
from tests.training.test_given import config, dpo, metrics, write


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of what is kept."""
    monkeypatch.setenv("POLICYOPT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "given"


def scored(out: Path, recipe: Recipe, model: Path, task: Path, **changes: Any) -> list[float]:
    """Trains. Returns how many tokens the reference passed at each step."""
    run(config(recipe, model, task, out, **changes), quiet=True)
    return [row["tokens/reference"] for row in metrics(out) if "tokens/reference" in row]


def weights(out: Path) -> dict[str, Tensor]:
    return load_file(out / "model" / "model.safetensors")


def files(kept: Path) -> list[Path]:
    return sorted(kept.glob("*/*.bin"))


# Runs ------------------------------------------------------------------------------------------------------------------


def test_second_epoch_and_second_run_make_no_pass_and_give_the_same_bits(
    tiny_model: Path, tmp_path: Path, kept: Path
) -> None:
    task = write(tmp_path / "pairs.jsonl")
    first = scored(tmp_path / "one", dpo(), tiny_model, task, steps=12)
    assert first[0] > 0 and first[-1] == 0, "24 pairs, 4 of them held out, 4 a step: the second epoch begins at step 6"
    assert sum(first[5:]) == 0
    assert scored(tmp_path / "two", dpo(), tiny_model, task, steps=12) == [0.0] * 12
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert len(files(kept)) == 1, "the second run had nothing to write"


def other_model(model: Path, folder: Path) -> Path:
    """The model with the last bit of one number changed."""
    folder.mkdir()
    for path in model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    name = min(tensors)
    tensors[name].view(torch.int32).view(-1)[-1] ^= 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def other_config(model: Path, folder: Path) -> Path:
    """The same weights under another configuration."""
    folder.mkdir()
    for path in model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(told | {"rms_norm_eps": 2 * told["rms_norm_eps"]}))
    return folder


@pytest.mark.parametrize("made", [other_model, other_config])
def test_another_model_is_asked_itself(
    made: Callable[[Path, Path], Path], tiny_model: Path, tmp_path: Path, kept: Path
) -> None:
    task = write(tmp_path / "pairs.jsonl")
    first = scored(tmp_path / "one", dpo(), tiny_model, task, steps=2)
    assert scored(tmp_path / "two", dpo(), made(tiny_model, tmp_path / "other"), task, steps=2) == first


def test_another_template_dtype_or_text_is_scored_anew(tiny_model: Path, tmp_path: Path, kept: Path) -> None:
    task = write(tmp_path / "pairs.jsonl")
    first = scored(tmp_path / "one", dpo(), tiny_model, task, steps=2)
    assert min(first) > 0
    system = Prompting(system="be brief")
    assert scored(tmp_path / "two", dpo(), tiny_model, task, steps=2, prompting=system) == first
    assert scored(tmp_path / "three", dpo(), tiny_model, task, steps=2, dtype="bfloat16") == first
    changed = tmp_path / "changed.jsonl"
    changed.write_text(task.read_text().replace('"yes 1', '"yeS 1'))
    some = scored(tmp_path / "four", dpo(), tiny_model, changed, steps=2)
    assert 0 < sum(some) < sum(first), "those that changed, and no others"


def test_adapters_that_are_trained_are_no_part_of_the_reference(tiny_model: Path, tmp_path: Path, kept: Path) -> None:
    task = write(tmp_path / "pairs.jsonl")
    first = scored(tmp_path / "one", dpo(), tiny_model, task, steps=2, adapters=LoRA(rank=2), seed=1)
    again = scored(tmp_path / "two", dpo(), tiny_model, task, steps=2, adapters=LoRA(rank=4), seed=1)
    assert min(first) > 0 and again == [0.0, 0.0]


def test_a_reference_that_moves_is_never_kept(tiny_model: Path, tmp_path: Path, kept: Path) -> None:
    task = write(tmp_path / "pairs.jsonl")
    for name in ("one", "two"):
        moving = dpo().replace(reference=EMA(0.5))
        assert min(scored(tmp_path / name, moving, tiny_model, task, steps=2)) > 0
    assert not files(kept)


def test_a_spoiled_file_is_not_trusted(tiny_model: Path, tmp_path: Path, kept: Path) -> None:
    task = write(tmp_path / "pairs.jsonl")
    first = scored(tmp_path / "one", dpo(), tiny_model, task, steps=2)
    [path] = files(kept)
    whole = path.read_bytes()
    path.write_bytes(whole[:30] + bytes([whole[30] ^ 1]) + whole[31:])  # in the numbers of the first record
    assert scored(tmp_path / "two", dpo(), tiny_model, task, steps=2) == first
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.equal(one[name], two[name]) for name in one)


# Texts ----------------------------------------------------------------------------------------------------------------


def given(seed: int = 0) -> Batch:
    """Rows of unlike length, of which some tokens are not the policy's own."""
    batch = random_batch(seed=seed, gaps=True)
    return batch.replace(temperature=torch.ones(len(batch)).double())


class Scorer:
    """Says the number of each row, and how many rows it was asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, batch: Batch) -> Tensor:
        self.asked += len(batch)
        return batch.mask * (batch.tokens + torch.arange(batch.mask.shape[1])).to(batch.mask) / 7


def test_rows_come_back_whatever_stands_beside_them(tmp_path: Path) -> None:
    batch, scorer = given(), Scorer()
    known = Known(tmp_path, torch.float64)
    said = known(batch, scorer)
    torch.testing.assert_close(said, scorer(batch), rtol=0, atol=0)
    known.write()
    again, other = Known(tmp_path, torch.float64), Scorer()
    order = torch.randperm(len(batch))
    torch.testing.assert_close(again(batch[order], other), said[order], rtol=0, atol=0)
    assert other.asked == 0


@pytest.mark.parametrize("column", ["prompt", "tokens", "mask", "temperature"])
def test_all_that_a_number_depends_on_is_part_of_the_text(column: str, tmp_path: Path) -> None:
    batch, known, scorer = given(), Known(tmp_path, torch.float64), Scorer()
    known(batch, scorer)
    before, x = scorer.asked, getattr(batch, column).clone()
    x.view(-1)[0] = 1 - x.view(-1)[0] if column == "mask" else x.view(-1)[0] + 1
    known(batch.replace(**{column: x}), scorer)
    assert scorer.asked == before + 1


def test_what_is_cut_off_is_lost_and_nothing_else(tmp_path: Path) -> None:
    batch, scorer = given(), Scorer()
    known = Known(tmp_path, torch.float64)
    known(batch, scorer)
    known.write()
    [path] = tmp_path.glob("*.bin")
    path.write_bytes(path.read_bytes()[:-3])
    rest = Known(tmp_path, torch.float64)
    assert len(rest) == len(known) - 1
    (tmp_path / "other.bin").write_bytes(b"")
    (tmp_path / "text.bin").write_bytes(b"what is this")
    assert len(Known(tmp_path, torch.float64)) == len(known) - 1


def _writer(folder: Path, seed: int) -> None:
    known = Known(folder, torch.float64)
    for piece in range(4):
        known(given(10 * seed + piece), Scorer())
        known.write()


def test_processes_that_write_at_once_do_no_harm(tmp_path: Path) -> None:
    running = [PROCESSES.Process(target=_writer, args=(tmp_path, seed)) for seed in (1, 1)]
    for process in running:
        process.start()
    for process in running:
        process.join()
        assert process.exitcode == 0
    known, scorer = Known(tmp_path, torch.float64), Scorer()
    for piece in range(4):
        torch.testing.assert_close(known(given(10 + piece), scorer), Scorer()(given(10 + piece)), rtol=0, atol=0)
    assert scorer.asked == 0


def test_a_disk_that_takes_nothing_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    known = Known(tmp_path / "file", torch.float64)
    said = known(given(), Scorer())
    known.write()
    torch.testing.assert_close(known(given(), Scorer()), said, rtol=0, atol=0)
    assert "are not kept" in caplog.text


def test_what_was_not_read_for_longest_makes_room(tmp_path: Path) -> None:
    import os

    for i, name in enumerate(("old", "middle", "new")):
        path = tmp_path / name / "x.bin"
        path.parent.mkdir()
        path.write_bytes(bytes(100))
        os.utime(path, (i, i))
    make_room(tmp_path, limit=250)
    assert [p.parent.name for p in files(tmp_path)] == ["middle", "new"]
