"""Bad input ends before anything starts: a message that names what and where, exit code 2, and nothing left behind."""

from __future__ import annotations

import collections
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

import policyopt
from policyopt.errors import UserError
from policyopt.methods.group.grpo import grpo
from policyopt.models.embedded import random_tiny
from policyopt.sources.draw import Group
from policyopt.sources.program import Context, Question, Response
from tests.commands import QUICK, Said, contents, lines, over, write_rows, write_sums

Command = Callable[..., Said]


@pytest.fixture
def train(command: Command, tiny_model: Path) -> Command:
    """Trains on twelve sums, as far as the line lets it."""
    task = write_sums(Path("sums.jsonl"))

    def call(*line: Any, method: str = "grpo", model: Any = tiny_model, data: Any = task) -> Said:
        settings = ("--model", model, "--task", data, "--steps", 2, *QUICK)
        return command("train", method, *over(settings, line))

    return call


def refused(said: Said, *messages: str) -> None:
    """It ended with 2, said all of this, and showed nothing of how it is made."""
    assert said.code == 2, said
    for message in messages:
        assert message in said.words, said.words
    for leak in ("Traceback", "pydantic", "validation error", "type=", "<class", "site-packages"):
        assert leak not in said.err + said.out, said.err


@pytest.fixture
def untouched(tmp_path: Path) -> Iterator[None]:
    """Nothing appears in the current folder but the input that the test writes itself."""
    yield
    inputs = (".jsonl", ".yaml", ".py", ".parquet")
    found = {name for name in contents(tmp_path) if not name.endswith(inputs) and "__pycache__" not in name}
    assert not found, found


# The line ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "messages"),
    [
        (["trian", "grpo"], ["no command is called 'trian'", "nearest: train"]),
        (["train", "grppo"], ["no method is called 'grppo'", "nearest: grpo"]),
        (["train", "--steps", "3"], ["the method comes first", "grpo"]),
        (["train", "grpo", "--task", "chan_sum"], ["no task is called 'chan_sum'", "nearest: chain_sum"]),
        (["train", "grpo", "--task", "reasoning-gym:chian_sum"], ["chian_sum", "chain_sum"]),
        (
            ["train", "grpo", "--columns", "promt=q"],
            ["--columns promt=q: a column cannot be 'promt'", "nearest: prompt"],
        ),
        (["train", "grpo", "--eval-task", "none.csv"], ["there is no file 'none.csv'"]),
        (["tasks", "chain_sum", "--columns", "prompt=q"], ["task 'chain_sum' makes its own questions"]),
        (["train", "grpo", "--stpes", "3"], ["there is no option --stpes; nearest: --steps"]),
        (["train", "grpo", "--gruop-size", "4"], ["there is no option --gruop-size; nearest: --group-size"]),
        (["train", "grpo", "--recipe.surrogate.hihg", "1"], ["--recipe.surrogate.hihg", "--recipe.surrogate.high"]),
        (["train", "grpo", "--recipe.critic.coef", "1"], ["there is no option --recipe.critic.coef"]),
        (
            ["train", "grpo", "--optim.learning-rate", "1"],
            ["there is no option --optim.learning-rate; here it is --optim.lr"],
        ),
        (["train", "grpo", "extra"], ["extra"]),
        (["train", "grpo", "actor_rollout_ref.rollout.n=4"], ["rollout.n=4 is no option; here it is --group-size"]),
        (["--steps", "3"], ["the command comes first: policyopt COMMAND --steps"]),
        (["train", "grpo", "--resume"], ["--resume"]),
        (["eval", "--promts", "4"], ["--promts", "--prompts"]),
        (["sample", "--temprature", "1"], ["--temprature", "--temperature"]),
        (["list", "--jsno"], ["--jsno", "--json"]),
        (["tasks", "all"], ["all"]),
    ],
)
def test_a_name_that_does_not_exist(line: list[str], messages: list[str], command: Command, untouched: None) -> None:
    refused(command(*line), *messages)


@pytest.mark.parametrize(
    ("line", "messages"),
    [
        (["--steps", "many"], ["--steps", "expected a whole number, not 'many'"]),
        (["--steps", "1.5"], ["--steps", "expected a whole number, not '1.5'"]),
        (["--optim.lr", "fast"], ["--optim.lr", "expected a number or none, not 'fast'"]),
        (["--optim.betas", "0.9"], ["--optim.betas", "2 values"]),
        (["--dtype", "f32"], ["--dtype", "one of 'float32', 'bfloat16'", "not 'f32'"]),
        (["--low", "wide"], ["--low", "expected a number or none, not 'wide'"]),
        (["--kl", "k9"], ["--kl", "one of 'k1', 'k2', 'k3' or 'abs'", "not 'k9'"]),
        (["--recipe.regularizers.KL.estimator", "k9"], ["--recipe.regularizers.KL.estimator", "not 'k9'"]),
        (["--long-prompts", "cut"], ["--long-prompts", "'refuse' or 'skip'"]),
        (["--lora", "yes"], ["yes"]),
    ],
)
def test_a_value_of_the_wrong_type(line: list[str], messages: list[str], command: Command, untouched: None) -> None:
    refused(command("train", "grpo", *line), *messages)


@pytest.mark.parametrize(
    ("method", "line", "messages"),
    [
        ("grpo", ["--low", "-0.1"], ["grpo", "low: expected at least 0, not -0.1"]),
        ("grpo", ["--low", "nan"], ["low: expected a finite number, not nan"]),
        ("grpo", ["--kl-coef", "-1"], ["KL.coef: expected at least 0"]),
        ("grpo", ["--recipe.surrogate.high=-1"], ["--recipe.surrogate.high", "expected at least 0"]),
        ("grpo", ["--recipe.surrogate.high", "inf"], ["--recipe.surrogate.high", "expected a finite number"]),
        ("grpo", ["--recipe.source.temperature", "0"], ["--recipe.source.temperature", "expected more than 0"]),
        ("grpo", ["--optim.lr", "0"], ["--optim.lr", "expected more than 0"]),
        ("grpo", ["--optim.lr", "inf"], ["--optim.lr", "expected a finite number"]),
        ("grpo", ["--optim.betas", "0.9", "2"], ["--optim.betas", "expected at most 1, not '2'"]),
        ("grpo", ["--steps", "0"], ["--steps", "expected at least 1"]),
        ("grpo", ["--seed", "-1"], ["--seed", "expected at least 0"]),
        ("grpo", ["--staleness", "-1"], ["--staleness", "expected at least 0"]),
        ("grpo", ["--judging.max-failed", "2"], ["--judging.max-failed", "expected at most 1"]),
        ("grpo", ["--judging.timeout", "0"], ["--judging.timeout", "expected more than 0"]),
        ("grpo", ["--group-size", "0"], ["size: expected at least 1"]),
        ("grpo", ["--group-size", "1"], ["source.size is 1", "needs at least 2", "raise source.size"]),
        ("rloo", ["--recipe.source.size", "1"], ["recipe: source.size is 1", "needs at least 2"]),
        ("grpo", ["--batch", "20"], ["batch is 20 responses", "not a multiple of recipe.source.size (8)"]),
        (
            "grpo",
            ["--batch", "64", "--recipe.update.minibatches", "3"],
            ["8 prompts", "recipe.update.minibatches (3) does not divide"],
        ),
        ("grpo", ["--eval.samples", "4", "--eval.k", "5"], ["eval.k is 5", "eval.samples is 4"]),
        ("ppo", ["--gamma", "1.5"], ["gamma: expected at most 1"]),
        ("reinforce", ["--baseline", "constant"], ['reinforce: baseline "constant" needs constant=NUMBER']),
    ],
)
def test_a_value_out_of_its_range(
    method: str, line: list[str], messages: list[str], command: Command, untouched: None
) -> None:
    refused(command("train", method, *line), *messages)


@pytest.mark.parametrize(
    ("line", "messages"),
    [
        (["eval", "--prompts", "0"], ["--prompts", "expected at least 1"]),
        (["eval", "--samples", "2", "--k", "3"], ["--k 3", "--samples (2)"]),
        (["eval", "--dtype", "int8"], ["--dtype", "not 'int8'"]),
        (["sample", "--n", "0"], ["--n", "expected at least 1"]),
        (["sample", "--temperature", "-1"], ["--temperature", "expected at least 0"]),
    ],
)
def test_eval_and_sample_check_their_numbers(
    line: list[str], messages: list[str], command: Command, untouched: None
) -> None:
    refused(command(*line), *messages)


def test_a_device_that_is_not_there(train: Command, untouched: None) -> None:
    refused(train("--device", "warp"), "--device warp", "cpu always can")
    refused(train("--device", "meta"), "--device meta", "cpu always can")


def test_a_name_with_a_nul_in_it(train: Command, command: Command, untouched: None) -> None:
    refused(command("train", "grpo", "--config", "a\0b"), "cannot be read (embedded null byte)")
    refused(train("--out", "a\0b"), "the run's folder cannot be made there (embedded null byte)")


def test_a_launcher_of_several_processes(command: Command, monkeypatch: pytest.MonkeyPatch, untouched: None) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused(command("train", "grpo"), "WORLD_SIZE is 2, and RANK", "torchrun", "one process")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    refused(command("eval"), "WORLD_SIZE is 2", "only training runs in several processes")


def test_a_file_that_runs_is_announced(command: Command) -> None:
    for name, line in {"check": [], "explain": ["--json"], "train": ["--stpes", "3"]}.items():
        Path(f"my_{name}.py").write_text("import policyopt as po\nmine = po.methods.grpo()\n")
        said = command(name, f"my_{name}.py:mine", *line)
        assert said.err.splitlines()[0] == f"running my_{name}.py", said.err
        assert "running" not in said.out


# Datasets ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ('{"prompt": "1+1", "answer": "2"}\n{"prompt": "1+2"}\n', ["data.jsonl, line 2: no 'answer'", "it has prompt"]),
        ('{"prompt": "1+1", "answer": "2"}\n\n{"prompt": "1+2", "answer": " "}\n', ["line 3: answer is empty"]),
        ('{"prompt": "1+1", "answer": "2"}\n{"prompt": "1+2", \n', ["data.jsonl, line 2: not JSON"]),
        ('{"prompt": 7, "answer": "2"}\n', ["line 1: prompt is a number"]),
        ('{"prompt": [{"role": "boss", "content": "?"}], "answer": "2"}\n', ["message 1: role is 'boss'"]),
        ("", ["data.jsonl: the dataset is empty"]),
        ('{"prompt": "1+1", "answer": "2"}\n', ["too few to hold a quarter out"]),
    ],
)
def test_a_dataset_that_cannot_be_used(text: str, messages: list[str], train: Command, untouched: None) -> None:
    Path("data.jsonl").write_text(text)
    refused(train(data="data.jsonl"), *messages)


def test_a_dataset_that_is_not_there(train: Command, untouched: None) -> None:
    refused(train(data="nothing.jsonl"), "there is no file 'nothing.jsonl'")
    Path("broken.parquet").write_bytes(b"PAR1 and no more")
    refused(train(data="broken.parquet"), "broken.parquet: not a readable Parquet file")


def test_an_answer_that_the_judge_cannot_read(train: Command, untouched: None) -> None:
    data = write_rows(Path("words.jsonl"), ({"prompt": f"{i}?", "answer": "seven"} for i in range(8)))
    refused(train("--judge", "number", data=data), "words.jsonl, line", "judge 'number' needs a number")
    refused(train("--judge", "choise"), "no judge is called 'choise'", "nearest: choice")
    refused(train("--judge", "exact", data="chain_sum"), "'chain_sum' brings its own judge")


# Prompts longer than the context -------------------------------------------------------------------------------------


def with_long_prompts(path: Path, every: int = 3) -> Path:
    rows = [{"prompt": "1" * (300 if i % every == 0 else 10) + f"+{i}", "answer": str(i)} for i in range(24)]
    return write_rows(path, rows)


def test_a_prompt_longer_than_the_context_is_refused(train: Command, untouched: None) -> None:
    data = with_long_prompts(Path("long.jsonl"))
    refused(train(data=data), "prompt long.jsonl:", "tokens", "context leaves 248", "--long-prompts skip")


def test_long_prompts_are_skipped_and_counted_where_asked_and_never_cut(train: Command) -> None:
    said = train("--long-prompts", "skip", "--steps", 6, "--out", "run", data=with_long_prompts(Path("long.jsonl")))
    assert said.code == 0, said.err
    assert "prompts of more than 248 tokens are skipped" in said.out
    metrics = [row for row in lines(Path("run/metrics.jsonl")) if row["step"] > 0]
    skipped = [row["prompts/skipped"] for row in metrics]
    summary = json.loads(Path("run/summary.json").read_text())
    assert sum(skipped) == summary["prompts_skipped"] > 0
    assert {row["prompts"] for row in metrics} == {2.0}
    trained = [row for row in lines(Path("run/samples.jsonl")) if row["phase"] == "train"]
    assert trained
    assert max(len(row["prompt"]) for row in trained) < 20


def test_skipping_every_prompt_is_refused(train: Command, untouched: None) -> None:
    data = with_long_prompts(Path("long.jsonl"), every=1)
    refused(train("--long-prompts", "skip", data=data), "prompts are longer than the 248 tokens", "lower --max-tokens")


def test_held_out_prompts_that_are_all_too_long_are_refused(train: Command, untouched: None) -> None:
    write_sums(Path("train.jsonl"))
    with_long_prompts(Path("held.jsonl"), every=1)
    refused(train(data="train.jsonl,held.jsonl"), "all held-out prompts are longer than the 248 tokens")


# Worked solutions ----------------------------------------------------------------------------------------------------


def test_hints_without_a_single_solution_are_refused(train: Command, untouched: None) -> None:
    refused(
        train(method="scaf-grpo"),
        "scaf-grpo reads worked solutions, and none of the first 9 training prompts has one",
        "give the dataset a column 'solution'",
    )


def test_prompts_without_a_solution_are_counted(train: Command) -> None:
    rows = [
        {"prompt": f"{i}+{i}=?", "answer": str(2 * i)} | ({"solution": f"#### {2 * i}"} if i % 2 else {})
        for i in range(32)
    ]
    said = train("--steps", 3, "--out", "run", method="guide", data=write_rows(Path("some.jsonl"), rows))
    assert said.code == 0, said.err
    assert "prompts have no worked solution: the policy answers them without help" in said.out
    steps = [row for row in lines(Path("run/metrics.jsonl")) if row["step"] > 0]
    assert 0 < sum(row["prompts/unsolved"] for row in steps) < sum(row["prompts"] for row in steps)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ([], "Mine returned no response to any of 2 prompts"),
        ([Response([5, 6], [0.0], [0.0, 0.0], "eos")], "2 tokens and 1 entries in 'logp'"),
    ],
)
def test_a_rollout_program_that_returns_nothing_of_use(
    returned: list[Response], message: str, tiny_model: Path, tmp_path: Path
) -> None:
    class Mine(Group):
        async def draw(self, question: Question, context: Context) -> list[Response]:
            return returned

    recipe = grpo(group_size=4).replace(source=Mine(size=4))
    task = str(write_sums(tmp_path / "sums.jsonl"))
    out = tmp_path / "run"
    with pytest.raises(UserError, match=message):
        policyopt.train(recipe, model=str(tiny_model), task=task, steps=1, batch=8, max_tokens=8, out=out, quiet=True)


def test_a_budget_that_leaves_no_room(train: Command, command: Command, tiny_model: Path, untouched: None) -> None:
    refused(train("--max-tokens", 256), "--max-tokens 256 leaves no room", "context of 256 tokens")
    refused(
        command("train", "grpo", "--model", tiny_model, "--task", "sums.jsonl"),
        "the budget of 512 tokens that sums.jsonl suggests leaves no room",
        "set a lower --max-tokens",
    )
    for name in ("eval", "sample"):
        said = command(name, "--model", tiny_model, "--task", "sums.jsonl", "--max-tokens", 300)
        refused(said, "--max-tokens 300 leaves no room")
    said = command("sample", "--model", tiny_model, "--prompt", "1" * 300)
    refused(said, "--prompt", "context leaves 208")


# Models --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the model to spoil."""
    return shutil.copytree(tiny_model, tmp_path_factory.mktemp("spoiled") / "model")


def test_a_folder_that_is_no_model(train: Command, model: Path, untouched: None) -> None:
    refused(train(model="./nowhere"), "--model ./nowhere: there is no such folder")
    refused(train(model=model / "config.json"), "this is a file")
    (model / "model.safetensors").unlink()
    refused(train(model=model), "holds no model, it lacks weights (*.safetensors)")
    shutil.rmtree(model)
    model.mkdir()
    refused(train(model=model), "holds no model, it lacks config.json and weights")


@pytest.mark.parametrize(
    ("name", "spoil", "messages"),
    [
        ("model.safetensors", lambda text: text[:1000], ["cannot be loaded as a causal language model"]),
        ("model.safetensors", lambda text: b"", ["cannot be loaded as a causal language model"]),
        ("config.json", lambda text: text[:50], ["cannot be loaded as a causal language model"]),
        ("config.json", lambda text: b'{"model_type": "unheard-of"}', ["cannot be loaded as a causal language model"]),
        ("tokenizer.json", lambda text: b"{}", ["cannot be loaded as a causal language model"]),
    ],
)
def test_a_model_with_a_corrupt_file(
    name: str, spoil: Callable[[bytes], bytes], messages: list[str], train: Command, model: Path, untouched: None
) -> None:
    (model / name).write_bytes(spoil((model / name).read_bytes()))
    refused(train(model=model), f"--model {model}", *messages)


def test_weights_that_do_not_fill_the_model(train: Command, model: Path, untouched: None) -> None:
    tensors = load_file(model / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    refused(train(model=model), "the weights lack 1 tensors", "model.norm.weight")


def test_a_tokenizer_that_does_not_belong_to_the_model(train: Command, model: Path, untouched: None) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens([f"<new{i}>" for i in range(40)])
    tokenizer.save_pretrained(model)
    refused(train(model=model), f"--model {model}: the tokenizer has ids up to", "they do not belong together")


def test_a_tokenizer_without_an_end_token(train: Command, model: Path, untouched: None) -> None:
    net, _ = random_tiny()
    net.config.eos_token_id = None
    net.generation_config.eos_token_id = None
    net.save_pretrained(model)
    settings = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": None}))
    (model / "chat_template.jinja").unlink()
    refused(train(model=model), f"--model {model}: its tokenizer has no end token", "set eos_token")


def test_adapters_on_modules_that_are_not_there(train: Command, untouched: None) -> None:
    refused(train("--lora", "--adapters.targets", "q_projection"), "--adapters.targets q_projection")


def test_an_empty_prompt(command: Command, model: Path, untouched: None) -> None:
    (model / "chat_template.jinja").unlink()
    refused(command("sample", "--model", model, "--prompt", ""), "an empty prompt")


# Folders -------------------------------------------------------------------------------------------------------------


def test_an_output_folder_that_holds_something(train: Command) -> None:
    folder, file = Path("kept"), Path("file")
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    file.write_text("mine")
    refused(train("--out", folder), "--out kept is not empty: choose another folder")
    refused(train("--out", file), "--out file is a file")
    refused(train("--out", file / "run"), "--out file/run: the run's folder cannot be made there")
    assert contents(Path()) == {
        "file": b"mine",
        "kept": None,
        "kept/notes.txt": b"mine",
        "sums.jsonl": Path("sums.jsonl").read_bytes(),
    }


def test_a_folder_that_was_made_for_a_run_that_did_not_start_goes_again(train: Command, untouched: None) -> None:
    refused(train("--out", "a/b/c", "--device", "warp"))
    refused(train("--device", "warp"))  # runs/grpo-sums-seed0


def test_an_empty_folder_of_the_user_stays(train: Command) -> None:
    Path("mine").mkdir()
    refused(train("--out", "mine", "--device", "warp"))
    assert list(Path("mine").iterdir()) == []


@pytest.fixture(scope="module")
def finished(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step with its dataset beside it."""
    from policyopt.cli import main

    place = tmp_path_factory.mktemp("finished")
    line = ["train", "grpo", "--model", tiny_model, "--task", write_sums(place / "sums.jsonl"), "--out", place / "run"]
    assert main([str(word) for word in [*line, "--steps", 1, *QUICK]]) == 0
    return place / "run"


def test_an_output_folder_that_holds_another_run(train: Command, finished: Path) -> None:
    before = contents(finished)
    refused(train("--out", finished), f"--out {finished} is not empty", f"--resume {finished}")
    assert contents(finished) == before


@pytest.mark.parametrize(
    ("method", "line", "messages"),
    [
        ("dapo", [], ["is of grpo, not of dapo"]),
        ("grpo", ["--recipe.surrogate.high", "0.3"], ["has recipe.surrogate.high = 0.2, not 0.3"]),
        ("grpo", ["--high", "0.3"], ["has recipe.surrogate.high = 0.2", "makes it 0.3"]),
        ("grpo", ["--kl-coef", "0"], ["recipe.regularizers"]),
        ("grpo", ["--task", "countdown"], ["not countdown"]),
        ("grpo", ["--seed", "1"], ["has seed = 0, not 1"]),
        ("grpo", ["--lora"], ["has lora = False, not True"]),
        ("grpo", ["--optim.lr", "0.1"], ["has optim.lr = None, not 0.1"]),
        ("grpo", ["--out", "other"], ["--out other: a resumed run goes on in its own folder"]),
    ],
)
def test_a_run_that_cannot_be_resumed_like_this(
    method: str, line: list[str], messages: list[str], command: Command, finished: Path, untouched: None
) -> None:
    before = contents(finished)
    refused(command("train", method, "--resume", finished, *line), *messages)
    assert contents(finished) == before


def test_what_changes_only_what_is_to_come_may_be_set_anew(command: Command, finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    line = ["--steps", 2, "--long-prompts", "skip", "--eval.every", 1, "--checkpoints.keep", 1, "--judging.timeout", 5]
    said = command("train", "grpo", "--resume", run, *line)
    assert said.code == 0, said.err
    assert "resumed after step 1" in said.out
    assert yaml.safe_load((run / "config.yaml").read_text())["long_prompts"] == "skip"


def test_a_folder_without_a_run_cannot_be_resumed(command: Command, untouched: None) -> None:
    refused(command("train", "grpo", "--resume", "nowhere"), "--resume nowhere: no run lies there")


@pytest.mark.parametrize(
    ("file", "spoil", "messages"),
    [
        ("tensors.safetensors", lambda data: data[:-100], ["tensors.safetensors has", "the checkpoint was cut short"]),
        ("tensors.safetensors", lambda data: data[:-1] + bytes([data[-1] ^ 1]), ["is not what was written"]),
        ("state.json", lambda data: data[: len(data) // 2], ["state.json has", "cut short"]),
        ("manifest.json", lambda data: data[:10], ["manifest.json, line 1: not JSON", "the checkpoint is damaged"]),
    ],
)
def test_a_checkpoint_cut_short(
    file: str, spoil: Callable[[bytes], bytes], messages: list[str], command: Command, finished: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    path = sorted((run / "checkpoints").glob("step-*"))[-1] / file
    path.write_bytes(spoil(path.read_bytes()))
    before = contents(run)
    refused(command("train", "grpo", "--resume", run, "--steps", 2), *messages, f"delete {path.parent}")
    assert contents(run) == before


def test_a_checkpoint_of_another_recipe(command: Command, finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["recipe"]["critic"] = {"part": "ClippedValueLoss"}
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    said = command("train", "grpo", "--resume", run, "--steps", 2)
    refused(said, "the checkpoint is of another recipe or model", "critic/")


# A full disk ---------------------------------------------------------------------------------------------------------

Usage = collections.namedtuple("Usage", "total used free")


def test_a_disk_without_room_for_the_checkpoints(
    train: Command, monkeypatch: pytest.MonkeyPatch, untouched: None
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(1 << 30, (1 << 30) - 4096, 4096))
    refused(train("--out", "run"), "run: the run needs about", "MiB", "the disk has 0 MiB free")


def test_a_disk_that_is_full_when_the_run_begins(
    train: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    size = ["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(disk)]
    if os.geteuid() or subprocess.run(size, capture_output=True).returncode:
        pytest.skip("a small disk can be mounted by root only")
    try:
        (disk / "full").write_bytes(b"0" * os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize)
        refused(train("--out", disk / "run"), "the disk has 0 MiB free")
        monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(1 << 40, 0, 1 << 40))
        refused(train("--out", disk / "run"), "run/config.yaml: the configuration cannot be written", "No space left")
        assert [p.name for p in disk.iterdir()] == ["full"]
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


# Judges --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("judge", "source", "messages"),
    [
        ("nowhere.py:score", None, ["there is no file nowhere.py"]),
        ("nowhere:score", None, ["no module 'nowhere'"]),
        ("mine.py:skore", "def score(prompt, response, answer): return 1", ["defines no 'skore'", "nearest: score"]),
        ("mine.py:score", "def score(answer): return 1", ["line 1", "cannot be called as score(prompt, response"]),
        ("mine.py:score", "def score(:", ["mine.py, line 1"]),
        (
            "mine.py:score",
            "import not_installed\ndef score(prompt, response, answer): return 1",
            ["judge '", "mine.py:score' could not be loaded", "not_installed"],
        ),
        (
            "mine.py:score",
            "raise SystemExit('not today')\ndef score(prompt, response, answer): return 1",
            ["could not be loaded", "not today"],
        ),
    ],
)
def test_a_judge_that_cannot_work(
    judge: str, source: str | None, messages: list[str], train: Command, untouched: None
) -> None:
    if source is not None:
        Path("mine.py").write_text(source)
    refused(train("--judge", judge), *messages)


MOODY = """
import time

def raises(prompt, response, answer):
    if len(response) % 2:
        raise RuntimeError("an odd response")
    return 1

def hangs(prompt, response, answer):
    if sum(map(ord, response)) % 5 == 0:
        time.sleep(60)
    return {"score": 0.5, "reason": "half"}

def always(prompt, response, answer):
    raise RuntimeError("never in the mood")
"""


def test_a_judge_that_raises_costs_a_response_its_reward_and_the_run_goes_on(train: Command) -> None:
    Path("moody.py").write_text(MOODY)
    said = train("--judge", "moody.py:raises", "--judging.max-failed", 1, "--log-samples", 100, "--out", "run")
    assert said.code == 0, said.err
    rows = [row for row in lines(Path("run/samples.jsonl")) if row["phase"] == "train"]
    failed = [row for row in rows if len(row["response"]) % 2]
    assert 0 < len(failed) < len(rows) == 16
    for row in rows:
        odd = len(row["response"]) % 2
        assert row["score"] == row["reward"] == (None if odd else 1.0)
        place = "moody.py, line 6, in raises: RuntimeError: an odd response (row sums.jsonl:"
        assert row["reason"].startswith(place if odd else "score 1")
    assert sum(row.get("judge/failed", 0) for row in lines(Path("run/metrics.jsonl"))) == len(failed)


def test_a_judge_that_hangs_costs_a_response_its_reward_and_the_run_goes_on(train: Command) -> None:
    Path("moody.py").write_text(MOODY)
    limits = ("--judging.max-failed", 1, "--judging.timeout", 0.3)
    said = train("--judge", "moody.py:hangs", *limits, "--log-samples", 100, "--steps", 1, "--out", "run")
    assert said.code == 0, said.err
    rows = [row for row in lines(Path("run/samples.jsonl")) if row["phase"] != "before"]
    hung = [row for row in rows if sum(map(ord, row["response"])) % 5 == 0]
    assert 0 < len(hung) < len(rows)
    assert {row["score"] for row in hung} == {None}
    assert {row["reason"].partition(" (row")[0] for row in hung} == {"judge took longer than 0.3 s"}
    assert {(row["score"], row["reason"]) for row in rows if row not in hung} == {(0.5, "half")}


def test_a_judge_that_fails_too_often_stops_the_run(train: Command) -> None:
    Path("moody.py").write_text(MOODY)
    said = train("--judge", "moody.py:always", "--judging.max-failed", 0.5, "--out", "run")
    refused(
        said, "the judge failed on 3 of 3 responses", "the limit is 50%", "--judging.max-failed", "never in the mood"
    )
    assert not Path("run/summary.json").exists()


# YAML ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("stpes: 3\n", ["run.yaml: no field is called 'stpes'; nearest: steps"]),
        ("optim:\n  lrr: 3\n", ["run.yaml: no field is called 'optim.lrr'", "lr"]),
        ("optim: 3\n", ["run.yaml: optim: expected Optim"]),
        ("steps: many\n", ["run.yaml: steps: expected a whole number, not 'many'"]),
        ("steps: 0\n", ["run.yaml: steps: expected at least 1, not 0"]),
        ("eval:\n  every: -1\n", ["run.yaml: eval.every: expected at least 0, not -1"]),
        ("eval:\n  k: 9\n", ["run.yaml: eval.k is 9"]),
        ("recipe:\n  surogate: {}\n", ["run.yaml: recipe: Recipe has no field 'surogate'; nearest: surrogate"]),
        ("recipe:\n  surrogate:\n    low: -1\n", ["run.yaml: recipe.surrogate.low: expected at least 0, not -1"]),
        (
            "recipe:\n  surrogate:\n    part: PPOClp\n",
            ["recipe.surrogate: no part is called 'PPOClp'; nearest: PPOClip"],
        ),
        ("recipe:\n  surrogate:\n    part: KL\n", ["recipe.surrogate: expected Surrogate", "KL"]),
        ("recipe:\n  surrogate:\n    part: Surrogate\n", ["no part is called 'Surrogate'"]),
        ("recipe:\n  surrogate:\n    part: [1, 2]\n", ["recipe.surrogate: no part is called '[1, 2]'"]),
        ("recipe:\n  surrogate: 3\n", ["recipe.surrogate: expected Surrogate"]),
        ("recipe:\n  regularizers:\n    part: KL\n", ["recipe.regularizers"]),
        ("recipe:\n  1: 2\n", ["Recipe has no field 1"]),
        ("recipe: 3\n", ["run.yaml: recipe: expected a mapping of parts, not 3"]),
        ("recipe:\n  source:\n    size: 1\n", ["run.yaml: recipe: source.size is 1"]),
        ("recipe:\n  name: dapo\n", ["run.yaml is of dapo, not of grpo"]),
        ("steps: 3\nseed: [1\n", ["run.yaml, line", "not valid YAML"]),
        ("steps: 3\n\tseed: 1\n", ["run.yaml, line 2: not valid YAML"]),
        ("steps: \x07\n", ["run.yaml", "not valid YAML"]),
        ("- steps\n", ["run.yaml: expected a mapping"]),
        ("", ["run.yaml: expected a mapping"]),
    ],
)
def test_a_configuration_that_cannot_be_read(text: str, messages: list[str], command: Command, untouched: None) -> None:
    Path("run.yaml").write_text(text)
    refused(command("train", "grpo", "--config", "run.yaml"), *messages)


def test_a_configuration_file_that_is_not_there_or_not_text(command: Command, tmp_path: Path, untouched: None) -> None:
    refused(command("train", "grpo", "--config", "nowhere.yaml"), "nowhere.yaml: cannot be read")
    refused(command("train", "grpo", "--config", tmp_path), "cannot be read")
    Path("run.yaml").write_bytes(b"steps: \xff\xfe")
    refused(command("train", "grpo", "--config", "run.yaml"), "run.yaml", "not valid YAML")


def test_a_hyper_parameter_that_the_file_would_undo(command: Command, untouched: None) -> None:
    Path("run.yaml").write_text("recipe:\n  source:\n    size: 4\n")
    said = command("train", "grpo", "--config", "run.yaml", "--group-size", 16)
    refused(said, "run.yaml has recipe.source.size = 4", "makes it 16", "set the field itself")
