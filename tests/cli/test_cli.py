"""The command line: what it shows, what it understands, and what it does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import yaml
from huggingface_hub.utils.tqdm import are_progress_bars_disabled as hub_bars_disabled
from huggingface_hub.utils.tqdm import disable_progress_bars as disable_hub_bars
from huggingface_hub.utils.tqdm import enable_progress_bars as enable_hub_bars
from pydantic import ValidationError
from rich.cells import cell_len
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers.utils import logging

import policyopt
from policyopt.cli import main
from policyopt.cli.train import parse_config
from policyopt.data import builtin_tasks
from policyopt.docs import plain
from policyopt.errors import UserError
from policyopt.methods.analysis.policy_cliff import RewardCliff
from policyopt.methods.analysis.rl_subnetworks import UpdateSparsity
from policyopt.methods.clip.dapo import dapo
from policyopt.methods.group.grpo import grpo
from policyopt.models.quiet import quiet
from policyopt.parts.probe.watched import Watched
from policyopt.parts.span.kinds import Regex
from policyopt.registry import Method, get_method, methods
from policyopt.training.config import Optim, TrainConfig
from tests.batches import EVERY_METHOD, LIBRARY_PARTS, SOME_METHODS, few
from tests.commands import QUICK, Said, contents, lines, over, write_rows, write_sums

Command = Callable[..., Said]


def configured(*line: Any, method: str = "grpo") -> TrainConfig:
    """What a line of ``policyopt train METHOD`` asks for."""
    return parse_config(get_method(method), [str(word) for word in line])[0]


@pytest.fixture
def train(command: Command, tiny_model: Path) -> Command:
    """Trains two steps on twelve sums into the folder ``run``."""

    def call(*line: Any, data: Any = None, out: str = "run") -> Said:
        task = data or write_sums(Path("sums.jsonl"))
        settings = ("--model", tiny_model, "--task", task, "--steps", 2, "--out", out, *QUICK)
        said = command("train", "grpo", *over(settings, line))
        assert said.code == 0, said.err
        assert said.err == ""
        return said

    return call


# Help ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [[], ["--help"], ["-h"], ["help"]])
def test_help_of_the_command(line: list[str], command: Command) -> None:
    said = command(*line)
    assert (said.code, said.err) == (0, "")
    for name in ("train METHOD", "eval", "sample", "list", "tasks", "policyopt COMMAND --help"):
        assert name in said.out
    assert max(map(len, said.out.splitlines())) <= 120


@pytest.mark.parametrize("line", [["train"], ["train", "--help"]])
def test_help_of_train_lists_the_methods(line: list[str], command: Command) -> None:
    said = command(*line)
    assert said.code == 0
    assert ", ".join(methods()) in said.out
    assert all(flag in said.out for flag in ("--config", "--resume", "--recipe.surrogate.high"))


@pytest.mark.parametrize("width", [60, 80, 120])
def test_help_of_a_method(width: int, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    said = command("train", "grpo", "--help")
    assert (said.code, said.err) == (0, "")
    text = said.out
    assert max(map(len, text.splitlines())) <= width
    assert text.startswith("Group Relative Policy Optimization")
    assert "arXiv:2402.03300" in text
    assert not re.search(r"``|:func:|:class:|\.\. math|<class|NoneType|pydantic|\{None\}", text)
    places = [
        text.index(flag) for flag in ("--group-size INT", "--model TEXT", "--recipe.surrogate.high", "--optim.lr")
    ]
    assert places == sorted(places), "the method's own first, then the run's, then the parts"
    words = " ".join(re.sub("[│╭╮╰╯─]", " ", text).split())
    for flag, kind, doc in [
        ("--steps", "INT", f"Batches to train on. (default: {TrainConfig(recipe=grpo()).steps})"),
        ("--recipe.surrogate.high", "NUMBER", "How far above 1 a ratio may rise"),
        ("--recipe.regularizers.KL.coef", "NUMBER", "beta; a controller may move it. (default: 0.04)"),
        ("--optim.lr", "NUMBER", "Learning rate;"),
        ("--dtype", "{float32,bfloat16,float16,float64}", "Precision that the models compute in"),
        ("--judge", "TEXT", "Judge of a dataset"),
    ]:
        assert f"{flag} {kind} {doc}" in words
    assert (
        "What is credited to each token; None where no part of the loss reads it. Normalise: Reward minus a centre, over a scale"
        in words
    )
    assert "--recipe.name" not in text


@few(methods(), 3)
def test_every_method_has_help(method: Method, command: Command) -> None:
    said = command("train", method.name, "--help")
    assert (said.code, said.err) == (0, "")
    for name in method.hyperparameters:
        assert re.search(rf"--{name.replace('_', '-')}[ ,]", said.out), name  # a comma: a switch, and the other way
    words = " ".join(said.out.split())
    assert plain(method.summary) in words


@EVERY_METHOD
def test_no_hyper_parameter_has_the_name_of_a_field_of_the_run(method: Method) -> None:
    assert not set(method.hyperparameters) & (
        {f.name for f in fields(TrainConfig)} | {"config", "resume", "studies", "with"}
    )


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("eval", ["--model", "--task", "--judge", "--prompts", "--samples", "--k", "--json", "--max-tokens"]),
        ("sample", ["--model", "--task", "--prompt", "--questions", "--temperature"]),
        ("list", ["--json"]),
        ("tasks", ["--help"]),
    ],
)
def test_help_of_the_other_commands(name: str, flags: list[str], command: Command) -> None:
    said = command(name, "--help")
    assert (said.code, said.err) == (0, "")
    assert f"usage: policyopt {name}" in said.out
    assert all(flag in said.out for flag in flags)


# What there is -------------------------------------------------------------------------------------------------------


def test_list_in_a_pipe_is_a_line_for_each(command: Command) -> None:
    rows = {line.split()[0]: re.split(" {2,}", line) for line in command("list").out.splitlines()}
    assert list(rows) == [m.name for m in sorted(methods().values(), key=lambda m: (m.family, m.name))]
    for method in methods().values():
        told = [method.name, method.family, method.parent or "-", method.source, method.confidence, method.summary]
        assert rows[method.name] == told


@pytest.mark.parametrize("width", [60, 80, 120])
def test_list_on_a_terminal(width: int, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")
    text = re.sub(r"\x1b\[[0-9;]*m", "", command("list").out)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    words = " ".join(text.split())
    for method in methods().values():
        assert f"{method.name} {method.summary}" in words
        origin = f"child of {method.parent}, " if method.parent else ""
        assert f"{origin}{method.source}; facts from: {method.confidence}" in words


def test_list_as_json(command: Command) -> None:
    rows = json.loads(command("list", "--json").out)
    assert {row["method"] for row in rows} == set(methods())
    mine = next(row for row in rows if row["method"] == "dapo")
    assert mine == {
        "method": "dapo",
        "family": "clip",
        "parent": "grpo",
        "source": "arXiv:2503.14476",
        "confidence": "paper",
        "summary": dapo.summary,
    }


def test_list_of_another_kind(command: Command) -> None:
    rows = {line.split()[0]: re.split(" {2,}", line) for line in command("list", "--kind", "part").out.splitlines()}
    assert set(rows) == set(LIBRARY_PARTS)
    assert rows["KL"][1:4] == ["part", "regularizer", "policyopt.parts.regularizer.kl"]
    assert not any(re.search(r"\\\\|:math:|``", cell) for row in rows.values() for cell in row)
    (row,) = json.loads(command("list", "--kind", "study", "--json", "Never").out)
    assert row == {
        "name": "rl-subnetworks", "kind": "study", "family": "analysis", "source": "arXiv:2505.11711",
        "summary": "Which share of the weights training never moves.",
    }  # fmt: skip


def test_list_of_words(command: Command) -> None:
    assert [row["method"] for row in json.loads(command("list", "clip", "dynamic", "SAMPLING", "--json").out)] == [
        "dapo"
    ]
    every = json.loads(command("list", "--kind", "all", "--json").out)
    assert {row["kind"] for row in every} >= {"method", "part", "testbed", "study"}
    said = command("list", "nothing-of-that")
    assert (said.code, said.out) == (2, "")
    assert "no method with 'nothing-of-that' in name, family or sentence" in said.words
    assert "oppo" in command("list", "--kind", "tool").out
    assert "{method,part" in command("list", "--kind", "parts").words


def test_the_page_of_methods_is_up_to_date(command: Command) -> None:
    page = Path(policyopt.__file__).parents[1] / "docs" / "methods.md"
    assert command("list", "--markdown").out == page.read_text(), "policyopt list --markdown > docs/methods.md"
    assert "| `KL` |" in command("list", "--markdown", "--kind", "part", "kl").out


@pytest.mark.parametrize("width", [60, 120])
def test_list_of_all_kinds_on_a_terminal(width: int, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")
    text = re.sub(r"\x1b\[[0-9;]*m", "", command("list", "--kind", "all").out)
    assert max(map(cell_len, text.splitlines())) <= width
    assert all(title in text for title in ("method: clip", "part: regularizer", "testbed: task", "study: analysis"))


def test_help_of_a_command_by_its_name(command: Command) -> None:
    assert command("help", "list").out == command("list", "--help").out
    assert "no command is called 'lst'" in command("help", "lst").err


def test_tasks(command: Command) -> None:
    said = command("tasks")
    assert said.code == 0
    assert all(name in said.out for name in [*builtin_tasks(), "reasoning-gym:NAME", ".jsonl", ".parquet", "--judge"])


def test_what_would_be_read_of_a_file(command: Command, tiny_model: Path) -> None:
    Path("sums.csv").write_text("question,answer,level\n" + "".join(f"{i}+{i}?,{2 * i},easy\n" for i in range(8)))
    said = command("tasks", "sums.csv", "--prompts", 1)
    assert said.code == 0
    for line in (
        "columns of sums.csv: question -> prompt, answer",
        "rows of sums.csv: 7 to train on, 1 held out",
        "judge       number",
        "user        0+0?",
        "for judges  question, level",
    ):
        assert line in said.out
    said = command("tasks", "sums.csv", "--columns", "answer=level", "--judge", "exact", "--model", tiny_model)
    assert "question -> prompt, level -> answer" in said.out and "prompt      <|user|>0+0?" in said.out
    assert "answer      easy" in said.out and "judge       exact" in said.out
    refused = command("tasks", "sums.csv", "--columns", "answer=levle")
    assert refused.code == 2 and "no such column; nearest: level" in refused.err
    assert "user        " in command("tasks", "chain_sum").out


def test_version(command: Command) -> None:
    assert command("--version").out == f"{policyopt.__version__}\n"


# What a line asks for ------------------------------------------------------------------------------------------------


def test_a_line_without_options_is_the_method_with_the_defaults() -> None:
    assert configured() == TrainConfig(recipe=grpo())
    assert configured(method="dapo") == TrainConfig(recipe=dapo())


@SOME_METHODS
def test_the_defaults_of_every_method_come_through_the_line(method: Method) -> None:
    config = configured("--steps", 3, method=method.name)
    assert config == TrainConfig(recipe=method(), steps=3)
    assert config.recipe.name == method.name


def test_hyper_parameters_make_the_recipe() -> None:
    line = ["--group-size", 4, "--low", 0.1, "--high=0.3", "--kl-coef", 0, "--kl", "k1", "--epochs", 2]
    assert configured(*line).recipe == grpo(low=0.1, high=0.3, kl_coef=0.0, kl="k1", epochs=2, group_size=4)
    assert configured("--low", "none").recipe == grpo(low=None)
    assert configured("--level", "token", method="gspo").recipe == get_method("gspo")(level="token")


def test_any_field_of_any_part_can_be_set() -> None:
    config = configured(
        "--recipe.surrogate.high", 0.28, "--recipe.surrogate.low", "none", "--recipe.regularizers.KL.coef", 0.1,
        "--recipe.advantage.scale", "none", "--recipe.source.temperature", 0.7, "--recipe.update.epochs", 2,
        "--optim.lr", 3e-4, "--optim.betas", 0.8, 0.95, "--eval.every", 0, "--checkpoints.keep", 1,
        "--judging.timeout", 2, "--adapters.rank", 4, "--lora", "--staleness", 2, "--dtype", "bfloat16", "--out", "a b",
        "--long-prompts", "skip",
    )  # fmt: skip
    recipe = grpo()
    for path, value in [
        ("surrogate.high", 0.28), ("surrogate.low", None), ("regularizers.KL.coef", 0.1), ("advantage.scale", "none"),
        ("source.temperature", 0.7), ("update.epochs", 2),
    ]:  # fmt: skip
        recipe = recipe.set(path, value)
    assert config.recipe == recipe
    assert config.optim == Optim(lr=3e-4, betas=(0.8, 0.95))
    assert (config.eval.every, config.checkpoints.keep, config.judging.timeout, config.adapters.rank) == (0, 1, 2.0, 4)
    assert (config.lora, config.staleness, config.dtype, config.out) == (True, 2, "bfloat16", Path("a b"))
    assert config.long_prompts == "skip"
    assert configured("--no-lora").lora is False


def test_underscores_do_as_well_as_hyphens() -> None:
    assert configured("--max_tokens", 5, "--group_size", 4) == configured("--max-tokens", 5, "--group-size", 4)


def test_fields_of_parts_in_tuples_and_of_the_critic_have_options() -> None:
    line = [
        "--recipe.critic.coef",
        0.5,
        "--recipe.shape.KLPenalty.coef",
        0.2,
        "--recipe.controllers.AdaptiveKL.target",
        3,
    ]
    config = configured("--kl-target", 6, *line, method="ppo")
    assert config.recipe.get("critic.coef") == 0.5
    assert config.recipe.get("shape.KLPenalty.coef") == 0.2
    assert config.recipe.get("controllers.AdaptiveKL.target") == 3
    assert (
        configured("--recipe.shape.LengthReward.start", 0.5, method="dapo").recipe.get("shape.LengthReward.start")
        == 0.5
    )


# Files ---------------------------------------------------------------------------------------------------------------


def test_the_line_goes_before_the_file_and_the_file_before_the_method(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "steps: 7\nseed: 5\nout: there\noptim: {lr: 1e-3}\n"
        "recipe:\n  surrogate: {high: 0.5}\n  source: {temperature: 0.9}\n  update: {epochs: 3}\n"
    )
    config = configured("--config", path, "--seed", 6, "--recipe.source.temperature", 0.8, "--group-size", 4)
    assert (config.steps, config.seed, config.out, config.optim) == (7, 6, Path("there"), Optim(lr=1e-3))
    recipe = grpo(high=0.5, group_size=4, epochs=3).set("source.temperature", 0.8)
    assert config.recipe == recipe
    assert config.batch == TrainConfig(recipe=recipe).batch


def test_a_file_may_exchange_parts(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "recipe:\n  aggregate: {part: TokenMean}\n  critic: null\n"
        "  regularizers:\n  - {part: KL, coef: 0.5}\n  - {part: EntropyBonus, coef: 0.01}\n"
    )
    recipe = configured("--config", path, "--recipe.regularizers.EntropyBonus.coef", 0.02).recipe
    assert type(recipe.aggregate).__name__ == "TokenMean"
    assert [(type(r).__name__, r.coef) for r in recipe.regularizers] == [("KL", 0.5), ("EntropyBonus", 0.02)]


@SOME_METHODS
def test_what_a_run_writes_gives_the_same_run(method: Method, tmp_path: Path) -> None:
    config = configured(
        "--optim.lr", 1e-7, "--max-tokens", 9, "--out", "x", "--recipe.source.temperature", 0.7, method=method.name
    )
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    again = configured("--config", path, method=method.name)
    assert again == config
    assert again.recipe.name == method.name
    assert again.to_yaml() == config.to_yaml()


def test_a_study_adds_its_probes_to_any_method(tmp_path: Path) -> None:
    both = configured("--with", "rl-subnetworks", "policy-cliff", method="dapo").recipe
    assert both == dapo().replace(probes=(UpdateSparsity(), RewardCliff()))
    assert both.name == "dapo"
    path = tmp_path / "config.yaml"
    path.write_text(configured("--with", "rl-subnetworks").to_yaml().replace("rank: false", "rank: true"))
    assert configured("--config", path, "--with", "rl-subnetworks").recipe.probes == (UpdateSparsity(rank=True),)
    with pytest.raises(UserError, match="no study is called 'grpo'; known: redteamcua, alignment-asymptotics"):
        configured("--with", "grpo")


def test_a_pattern_is_watched_in_any_method() -> None:
    probe = Watched(Regex(r"(?m)^[a-h]\d$", label="copied"))
    assert configured("--watch", r"copied=(?m)^[a-h]\d$", method="dapo").recipe == dapo().replace(probes=(probe,))
    for words, wrong in (
        ("copied", "expected NAME=PATTERN"),
        ("=x", "expected NAME"),
        ("a=", "expected NAME"),
        ("a=(", "no regular expr"),
    ):
        with pytest.raises((UserError, ValidationError), match=wrong):
            configured("--watch", words)


# Runs ----------------------------------------------------------------------------------------------------------------


def test_a_run_leaves_its_files_and_says_where(train: Command) -> None:
    said = train("--eval.samples", 2, "--eval.k", 2, "--seed", 3)
    assert {p.name for p in Path("run").iterdir()} == {
        "checkpoints", "config.yaml", "inputs.json", "metrics.jsonl", "model", "report.html", "samples.jsonl", "summary.json",
        "tensorboard",
    }  # fmt: skip
    summary = json.loads(Path("run/summary.json").read_text())
    assert (summary["method"], summary["steps"], summary["stopped"], summary["seed"]) == ("grpo", 2, "finished", 3)
    assert summary["task"] == "sums.jsonl"
    for line in ("step 1/2", "step 2/2", "pass@2", "accuracy", "report: run/report.html"):
        assert line in said.out
    assert "Loading weights" not in said.out
    settings = yaml.safe_load(Path("run/config.yaml").read_text())
    assert (settings["steps"], settings["recipe"]["source"]["size"], settings["seed"]) == (2, 4, 3)
    net = AutoModelForCausalLM.from_pretrained("run/model")
    assert sum(p.numel() for p in net.parameters()) > 20_000


def test_a_run_measures_what_a_study_measures(train: Command, command: Command) -> None:
    train("--with", "rl-subnetworks", "policy-cliff", "--eval.every", 1, "--eval.samples", 2, "--eval.k", 2)
    logged = {name for row in lines(Path("run/metrics.jsonl")) for name in row}
    assert any(name.endswith("sparsity/all") for name in logged), logged
    assert any(name.endswith("cliff/ties") for name in logged), logged
    said = command("train", "grpo", "--resume", "run", "--steps", 3)
    assert said.code == 0, said.err


def test_a_run_of_a_written_configuration_is_the_same_run(train: Command, command: Command) -> None:
    train()
    said = command("train", "grpo", "--config", "run/config.yaml", "--out", "again")
    assert said.code == 0, said.err
    first, second = (load_file(Path(out) / "model/model.safetensors") for out in ("run", "again"))
    assert all((first[name] == second[name]).all() for name in first)
    texts = [[row["response"] for row in lines(Path(out) / "samples.jsonl")] for out in ("run", "again")]
    assert texts[0] == texts[1]


def test_runs_are_numbered_where_no_folder_is_given(command: Command, tiny_model: Path) -> None:
    write_sums(Path("sums.jsonl"))
    line = ["train", "grpo", "--model", tiny_model, "--task", "sums.jsonl", "--steps", 1, *QUICK]
    for name in ("grpo-sums-seed0", "grpo-sums-seed0-2"):
        said = command(*line)
        assert f"out runs/{name}  judge" in said.out
        assert (Path("runs") / name / "report.html").is_file()


def test_resume_goes_on_where_the_run_stopped(train: Command, command: Command) -> None:
    train("--steps", 4, "--optim.lr", 1e-3, out="whole")
    train("--optim.lr", 1e-3)
    said = command("train", "grpo", "--resume", "run", "--steps", 4)
    assert said.code == 0, said.err
    assert "resumed after step 2" in said.out
    assert [row["step"] for row in lines(Path("run/metrics.jsonl"))] == [0, 1, 2, 3, 4]
    whole, mine = (load_file(Path(out) / "model/model.safetensors") for out in ("whole", "run"))
    assert all((whole[name] == mine[name]).all() for name in whole)
    assert configured("--config", "run/config.yaml").steps == 4


def test_adapters_precision_and_staleness(train: Command, tiny_model: Path, recwarn: pytest.WarningsRecorder) -> None:
    train("--lora", "--adapters.rank", 2, "--dtype", "bfloat16", "--staleness", 2, "--steps", 3, "--optim.lr", 0.1)
    before, after = load_file(tiny_model / "model.safetensors"), load_file("run/model/model.safetensors")
    assert before.keys() == after.keys(), "the adapters are merged in"
    assert {str(x.dtype) for x in after.values()} == {"torch.bfloat16"}
    assert (before["model.embed_tokens.weight"].bfloat16() == after["model.embed_tokens.weight"]).all()
    assert len(lines(Path("run/metrics.jsonl"))) == 4
    assert not [w for w in recwarn if "transformers" in w.filename]


@pytest.mark.parametrize("bars", [True, False])
@pytest.mark.parametrize("downloads", [True, False])
def test_what_transformers_shows_is_as_it_was_after_a_command(bars: bool, downloads: bool) -> None:
    before = (logging.is_progress_bar_enabled(), hub_bars_disabled(), logging.get_verbosity())
    (logging.enable_progress_bar if bars else logging.disable_progress_bar)()
    (enable_hub_bars if downloads else disable_hub_bars)()
    logging.set_verbosity_info()
    try:
        with quiet():
            assert not logging.is_progress_bar_enabled()
            assert hub_bars_disabled() is not downloads, "a download shows how far it is"
            assert logging.get_verbosity() == logging.ERROR
        assert (logging.is_progress_bar_enabled(), hub_bars_disabled()) == (bars, not downloads)
        assert logging.get_verbosity() == logging.INFO
    finally:
        (logging.enable_progress_bar if before[0] else logging.disable_progress_bar)()
        (disable_hub_bars if before[1] else enable_hub_bars)()
        logging.set_verbosity(before[2])


CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}]


@pytest.mark.parametrize(
    ("judge", "answers"),
    [("math", [r"\frac{1}{2}", "$x+1$"]), ("exact", ["yes", "no"]), ("number", ["7", "8.5"]),
     ("regex", ["[0-9]+", "a|b"]), ("choice", ["A", "B"]), ("mine.py:length", ["x", "y"]), ("mine:length", ["x", "y"])],
)  # fmt: skip
def test_every_judge_on_files_of_both_kinds(
    judge: str, answers: list[str], command: Command, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("mine.py").write_text("def length(prompt, response, answer):\n    return len(response) / 100\n")
    rows = [{"prompt": CHAT if i % 2 else f"{i}?", "answer": answers[i % 2]} for i in range(8)]
    plain_rows = [{"prompt": f"{i}?", "answer": answers[i % 2]} for i in range(8)]
    write_rows(Path("data.jsonl"), rows)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(plain_rows), "data.parquet")
    for data in ("data.jsonl", "data.parquet"):
        said = command("eval", "--model", tiny_model, "--task", data, "--judge", judge, "--max-tokens", 8, "--json")
        assert said.code == 0, said.err
        scores = json.loads(said.out)
        assert scores["n"] == 8, "measured whole"
        assert 0 <= scores["accuracy"] <= scores["pass@4"] + 1e-9 <= 1 + 1e-9


def test_training_with_a_judge_of_ones_own_on_chat_messages(train: Command) -> None:
    Path("mine.py").write_text(
        "def length(prompt, response, answer, per=1):\n"
        "    assert prompt[0]['content'] == 'Be brief.' and answer == '4'\n"
        "    return {'score': len(response), 'reason': f'{len(response)} characters'}\n"
    )
    rows = [{"prompt": [CHAT[0], {"role": "user", "content": f"{i}+{i}?"}], "answer": 4} for i in range(8)]
    train("--judge", "mine.py:length", "--log-samples", 100, data=write_rows(Path("chat.jsonl"), rows))
    trained = [row for row in lines(Path("run/samples.jsonl")) if row["phase"] == "train"]
    assert len(trained) == 16
    for row in trained:
        assert row["prompt"].startswith("Be brief.\n")
        assert row["reward"] == row["score"] == len(row["response"])
        assert row["reason"] == f"{len(row['response'])} characters"


def test_training_on_a_parquet_file(train: Command) -> None:
    rows = [{"prompt": f"{i}+1", "answer": str(i + 1)} for i in range(8)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), "data.parquet")
    train("--judge", "number", data="data.parquet")
    assert {row["id"].split(":")[0] for row in lines(Path("run/samples.jsonl"))} == {"data.parquet"}


# eval and sample -----------------------------------------------------------------------------------------------------


def test_eval(command: Command, tiny_model: Path) -> None:
    line = [
        "eval",
        "--model",
        tiny_model,
        "--task",
        write_sums(Path("sums.jsonl"), 40),
        "--prompts",
        6,
        "--max-tokens",
        8,
    ]
    scores = json.loads(command(*line, "--samples", 3, "--k", 2, "--json").out)
    said = {"judged", "judge/failed", "judge/absent", "correct", "distinct", "right", "answers"}
    assert set(scores) == {"accuracy", "format", "length", "pass@2", "n", "lengths"} | said
    assert scores["n"] == len(scores["lengths"]) == len(scores["correct"]) == 6
    assert scores["length"] == pytest.approx(sum(scores["lengths"]) / 6)
    table = command(*line, "--samples", 0)
    assert table.code == 0
    assert f"{tiny_model} on sums.jsonl, 6 questions" in table.out
    assert f"{scores['length']:.1f} tokens" in table.out
    assert "pass@" not in table.out
    assert contents(Path()).keys() == {"sums.jsonl"}


def test_eval_measures_a_whole_file(command: Command, tiny_model: Path) -> None:
    for name, count in (("three", 3), ("other", 5)):
        Path(f"{name}.csv").write_text("asked,gold\n" + "".join(f"{name} {i}?,{i}\n" for i in range(count)))
    line = ["eval", "--model", tiny_model, "--samples", 0, "--max-tokens", 4]
    named = ["--columns", "prompt=asked,answer=gold"]
    assert "three.csv, 3 questions" in command(*line, *named, "--task", "three.csv").out
    scores = json.loads(command(*line, *named, "--task", "three.csv+other.csv", "--json").out)
    assert scores["n"] == 8 and {"accuracy/three", "accuracy/other"} <= scores.keys()
    assert "--columns answer=gold: sums.jsonl has no such column" in command(
        *line, "--task", write_sums(Path("sums.jsonl")), "--columns", "answer=gold"
    ).err  # fmt: skip


def test_eval_of_a_trained_model(train: Command, command: Command) -> None:
    train("--eval.prompts", 3)
    summary = json.loads(Path("run/summary.json").read_text())["after"]
    line = ["--task", "sums.jsonl", "--prompts", 3, "--samples", 0, "--max-tokens", 8, "--json"]
    assert json.loads(command("eval", "--model", "run/model", *line).out) == summary


def test_sample(command: Command, tiny_model: Path) -> None:
    task = write_sums(Path("sums.jsonl"))
    line = ["sample", "--model", tiny_model, "--task", task, "--questions", 2, "--n", 2, "--max-tokens", 8]
    said = command(*line)
    assert said.code == 0
    out = said.out.splitlines()
    assert [bool(row) and not row.startswith("  ") for row in out].count(True) == 2
    assert said.out.count("no answer found") + said.out.count("is right") == 4
    assert command(*line).out == said.out, "the same seed gives the same responses"
    assert command(*line, "--seed", 1).out != said.out
    greedy = command(*line, "--temperature", 0).out.splitlines()
    assert greedy[1] == greedy[2]


def test_sample_with_a_prompt_of_ones_own(command: Command, tiny_model: Path) -> None:
    said = command("sample", "--model", tiny_model, "--prompt", "[bold]2+2[/bold]?", "--n", 3, "--max-tokens", 8)
    assert said.code == 0
    prompt, *responses = said.out.splitlines()
    assert prompt == "[bold]2+2[/bold]?"
    assert len(responses) == 3
    assert all(row.startswith("  ") for row in responses)
    assert "right" not in said.out


def test_what_a_model_writes_is_shown_as_it_is(
    command: Command, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from policyopt.models.text import Text

    text = "[red]1[/red] \x1b[31m\\[x] " + "long " * 60 + "\nnext"
    monkeypatch.setattr(Text, "decode_all", lambda self, rows: [text for _ in rows])
    out = command("sample", "--model", tiny_model, "--prompt", "?").out
    assert out == "?\n  " + text.replace("\x1b", "?").replace("\n", "\n  ") + "\n"


# As a program --------------------------------------------------------------------------------------------------------


def program(*line: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    script = Path(sys.executable).parent / "policyopt"
    return subprocess.run([str(script), *line], capture_output=True, text=True, timeout=120, **settings)


def test_the_console_script(tmp_path: Path) -> None:
    done = program("train", "grppo", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("policyopt: no method is called 'grppo'")
    module = subprocess.run(
        [sys.executable, "-m", "policyopt", "--version"], capture_output=True, text=True, timeout=60
    )
    assert module.stdout == f"{policyopt.__version__}\n"


def test_a_run_as_a_program_is_quiet_on_standard_error(tmp_path: Path, tiny_model: Path) -> None:
    line = [
        "train",
        "grpo",
        "--model",
        str(tiny_model),
        "--task",
        str(write_sums(tmp_path / "sums.jsonl")),
        "--steps",
        "1",
    ]
    done = program(*line, *map(str, QUICK), cwd=tmp_path, env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.rstrip().endswith("report: runs/grpo-sums-seed0/report.html")


def test_a_reader_that_goes_away_is_no_error() -> None:
    script = Path(sys.executable).parent / "policyopt"
    done = subprocess.run(
        f"'{script}' tasks | head -c 1; exit ${{PIPESTATUS[0]}}", shell=True, executable="/bin/bash",
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.returncode in (0, 1, 141)


def test_ctrl_c_before_the_first_step_is_no_traceback(
    command: Command, monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> None:
    import policyopt.models.load

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(policyopt.models.load, "load_policy", interrupted)
    said = command("train", "grpo", "--model", tiny_model, "--out", "run")
    assert (said.code, said.err) == (130, "interrupted\n")
    assert contents(Path()) == {}


def test_a_run_that_was_interrupted_says_how_to_go_on(
    command: Command, monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> None:
    from policyopt.training.loop import Trainer

    step = Trainer.step

    def interrupting(self: Trainer) -> dict[str, float]:
        if self.state.step == 1:
            import signal

            signal.raise_signal(signal.SIGINT)
        return step(self)

    monkeypatch.setattr(Trainer, "step", interrupting)
    line = ["train", "grpo", "--model", tiny_model, "--task", write_sums(Path("sums.jsonl")), "--out", "run", *QUICK]
    said = command(*line, "--steps", 9)
    assert said.code == 130
    assert "stopped: interrupted" in said.out
    assert said.out.endswith("go on with: policyopt train grpo --resume run\n")
    assert lines(Path("run/metrics.jsonl"))[-1]["step"] == 2
    monkeypatch.setattr(Trainer, "step", step)
    assert "resumed after step 2" in command("train", "grpo", "--resume", "run", "--steps", 3).out


def test_main_reads_the_arguments_of_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["policyopt", "--version"])
    assert main() == 0
    assert capsys.readouterr().out == f"{policyopt.__version__}\n"
