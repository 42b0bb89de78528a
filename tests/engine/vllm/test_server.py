"""Whole runs that a vLLM server draws for, and servers that do not do what they should."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from policyopt.engine import check_engine
from policyopt.engine.settings import Vllm
from policyopt.engine.vllm import open_sampler
from policyopt.engine.vllm import server as servers
from policyopt.errors import UserError
from policyopt.methods.group.grpo import grpo
from policyopt.models.adapters import LoRA
from policyopt.models.load import Policy
from policyopt.recipe import Recipe
from policyopt.sources.program import Response
from policyopt.training.config import Evaluation, TrainConfig
from policyopt.training.run import run
from tests.commands import Said
from tests.engine.vllm.double import Double, Faults, served
from tests.runs import assert_same_end, left_behind, lines, power_cut, tiny_run
from tests.tiny import load_tiny, write_task

PHASES = ["/pause", "/start_weight_update", "/update_weights", "/finish_weight_update", "/resume"]
LITTLE: dict[str, Any] = {"steps": 2, "batch": 8, "max_tokens": 6, "eval": Evaluation(every=0, prompts=2, samples=0)}


@pytest.fixture
def task(tmp_path: Path) -> dict[str, str]:
    return write_task(tmp_path / "task")


@pytest.fixture
def share(tmp_path: Path) -> Path:
    return tmp_path / "share"


Configure = Callable[..., TrainConfig]


@pytest.fixture
def double(tiny_model: Path) -> Double:
    return Double(tiny_model)


@pytest.fixture
def place(double: Double) -> Iterator[tuple[str, Faults]]:
    with served(double) as found:
        yield found


@pytest.fixture
def configure(
    place: tuple[str, Faults], tiny_model: Path, tmp_path: Path, share: Path, task: dict[str, str]
) -> Configure:
    def configured(out: str = "run", recipe: Recipe | None = None, **changes: Any) -> TrainConfig:
        vllm = Vllm(url=place[0], share=share, rows=16)
        return tiny_run(tmp_path / out, tiny_model, task, recipe, **({"sampler": "vllm", "vllm": vllm} | changes))

    return configured


def mismatch(out: Path) -> float:
    return max(row["mismatch/max"] for row in lines(out / "metrics.jsonl")[1:])


def test_a_run_learns(
    place: tuple[str, Faults], double: Double, tiny_model: Path, share: Path, task: dict[str, str],
    command: Callable[..., Said], tmp_path: Path,
) -> None:  # fmt: skip
    said = command(
        "train", "grpo", "--model", tiny_model, "--task", task["task"], "--judge", task["judge"], "--steps", 8, "--batch", 16,
        "--group-size", 4, "--max-tokens", 12, "--optim.lr", 3e-3, "--eval.prompts", 2, "--eval.samples", 0, "--device", "cpu",
        "--sampler", "vllm", "--vllm.url", place[0], "--vllm.share", share, "--out", tmp_path / "run",
    )  # fmt: skip
    assert said.code == 0, said.err
    rows = lines(tmp_path / "run" / "metrics.jsonl")[1:]
    assert sum(r["reward/mean"] for r in rows[-3:]) > sum(r["reward/mean"] for r in rows[:3]) + 0.2
    assert 0 < mismatch(tmp_path / "run") < 1e-5, "every step was drawn from the weights that the trainer had"
    assert all("entropy" not in r for r in rows), "vLLM does not say it"
    phases = [path for path in double.calls if path in PHASES]
    assert phases == PHASES * 9, "once for each version"
    assert double.calls.count("/init_weight_transfer_engine") == 1
    assert len(set(double.seeds)) > 8 * 16
    assert list(share.iterdir()) == []


def test_a_run_that_was_killed_goes_on(configure: Configure, double: Double) -> None:
    double.joins = False  # so that the same bits come, whatever arrives together
    short = LITTLE | {"steps": 3}
    whole = run(configure("whole", **short), quiet=True).out
    with power_cut(after=2):
        run(configure("parts", **short), quiet=True)
    double.paused = double.updating = True  # it died in the middle of a hand-over
    run(configure("parts", **short), resume=configure("parts").out, quiet=True)
    reference = left_behind(whole)
    assert_same_end(whole.with_name("parts"), reference)


def test_adapters_alone_are_handed_over(configure: Configure, double: Double, share: Path) -> None:
    before = double.checksums()
    out = run(configure(lora=True, adapters=LoRA(rank=2), **LITTLE), quiet=True).out
    assert mismatch(out) < 1e-5
    assert double.checksums() == before and "/update_weights" not in double.calls
    names = [path for path in double.calls if "lora" in path]
    assert names == ["/v1/load_lora_adapter", *["/v1/load_lora_adapter", "/v1/unload_lora_adapter"] * 2, names[-1]]
    assert double.samplers.keys() == {None}, "none is left"
    assert list(share.iterdir()) == []


# Stale weights -----------------------------------------------------------------------------------------------------------


def stale(configure: Configure, match: str) -> None:
    with pytest.raises(UserError, match=match):
        run(configure(**LITTLE), quiet=True)
    trained = [row for row in lines(configure().out / "metrics.jsonl") if "reward/mean" in row]  # type: ignore[operator]
    assert len(trained) == 1, "nothing was trained on what older weights drew"


def test_weights_that_are_not_taken(configure: Configure, double: Double) -> None:
    double.deaf = True
    stale(configure, r"does not have them: its .*norm.* is not that of the trainer")


def test_weights_whose_checksums_stand_still(configure: Configure, double: Double) -> None:
    double.deaf = True
    digests = double.checksums
    double.checksums = lambda: {f"{name}_packed": x for name, x in digests().items()}  # type: ignore[method-assign]
    stale(configure, "have changed, and its checksums have not")


def test_a_kernel_that_reads_an_older_copy(configure: Configure, double: Double) -> None:
    """As vLLM 0.32 does on a CPU with the output head of a model whose embeddings are tied."""
    double.packed = {"model.embed_tokens.weight"}
    stale(configure, "gives a text other log-probabilities than the trainer")


def test_somebody_elses_weights(configure: Configure, place: tuple[str, Faults], double: Double) -> None:
    def overtaken(found: Any) -> Any:
        if double.calls.count("/finish_weight_update") == 2:
            found["choices"][0]["weight_versions"][0]["version"] = "theirs"
        return found

    place[1].change["/inference/v1/generate"] = overtaken
    stale(configure, "drew with the weights 'theirs'")


def test_a_server_that_was_started_anew(configure: Configure, double: Double, tiny_model: Path) -> None:
    fresh = Double(tiny_model)

    def restarted(metrics: Any) -> None:
        if metrics["step"] == 1:
            vars(double).update({n: x for n, x in vars(fresh).items() if n not in ("calls", "seeds")})

    out = run(configure(**(LITTLE | {"steps": 3})), quiet=True, on_step=restarted).out
    assert mismatch(out) < 1e-5
    assert double.calls.count("/init_weight_transfer_engine") == 2


# Servers that fail -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def policy(tiny_model: Path) -> Policy:
    return load_tiny(tiny_model, "float32")


@pytest.fixture
def draw(place: tuple[str, Faults], share: Path, policy: Policy) -> Callable[[], list[Response]]:
    """Opens a sampler and draws one token."""

    def drawn() -> list[Response]:
        sampler = open_sampler(Vllm(url=place[0], share=share), grpo())(policy, policy.likelihood())
        try:
            return sampler.run([sampler.generate((7, 8), max_tokens=1, key=(1,))])[0]
        finally:
            sampler.close()
            assert list(share.iterdir()) == []

    return drawn


@pytest.mark.parametrize(
    "path", ["/version", "/start_weight_update", "/weight_info", "/weight_checker", "/inference/v1/generate"]
)
def test_a_server_without_a_route(draw: Callable[[], Any], place: tuple[str, Faults], path: str) -> None:
    place[1].missing.add(path)
    with pytest.raises(
        UserError, match=f"no route {path} .*VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --enable-scale-out"
    ):
        draw()


@pytest.mark.parametrize(
    ("path", "change", "match"),
    [
        ("/version", lambda x: {"version": "0.27.1"}, r"vLLM 0.27.1 is there, and 0.32 is needed"),
        ("/version", lambda x: "<html>", "is that a vLLM server"),
        ("/inference/v1/generate", lambda x: {"error": "no"}, "cannot be read"),
        ("/inference/v1/generate", lambda x: cut(x, "token_ids"), r"cannot be read .*others"),
        ("/inference/v1/generate", lambda x: cut(x, "weight_versions"), r"cannot be read .*versions of 0 tokens"),
        ("/inference/v1/generate", lambda x: longer(x), "2 tokens came where 1 to 1"),
        ("/inference/v1/generate", lambda x: unlikely(x), r"log-probability -9999.0"),
        ("/inference/v1/generate", lambda x: x | {"prompt_logprobs": None}, "0 log-probabilities came for 32"),
    ],
)
def test_a_server_that_says_something_else(
    draw: Callable[[], Any], place: tuple[str, Faults], path: str, change: Callable[[Any], Any], match: str
) -> None:
    place[1].change[path] = change
    with pytest.raises(UserError, match=match):
        draw()


def cut(answer: Any, name: str) -> Any:
    answer["choices"][0][name] = answer["choices"][0][name][:-1]
    return answer


def longer(answer: Any) -> Any:
    [choice] = answer["choices"]
    if answer["prompt_logprobs"] is None:
        choice["token_ids"] = choice["token_ids"] * 2
        choice["logprobs"]["content"] = choice["logprobs"]["content"] * 2
        choice["weight_versions"][0]["end"] = 2
    return answer


def unlikely(answer: Any) -> Any:
    answer["choices"][0]["logprobs"]["content"][0]["logprob"] = -9999.0
    return answer


def test_a_server_that_is_busy_is_asked_again(
    draw: Callable[[], Any], place: tuple[str, Faults], double: Double
) -> None:
    place[1].status["/inference/v1/generate"] = [503, 0, 429]
    with mock.patch.object(servers, "WAIT", 0.001):
        assert draw()
        place[1].status["/inference/v1/generate"] = [0] * 4
        with pytest.raises(UserError, match=r"no answer to /inference/v1/generate .*--resume"):
            draw()
    place[1].status["/update_weights"] = [500]
    with pytest.raises(UserError, match=r"/update_weights was refused .500: .*out of order"):
        draw()
    assert double.updating
    assert draw(), "the next one begins anew"


def test_a_server_that_is_not_there(configure: Configure) -> None:
    config = dataclasses.replace(configure(), model="no/such/model")
    gone = dataclasses.replace(config, vllm=Vllm(url="http://127.0.0.1:9"))
    with pytest.raises(UserError, match=r"--vllm.url http://127.0.0.1:9: no answer to /version .*Start the server"):
        run(gone, quiet=True)
    with pytest.raises(UserError, match="no answer"):
        run(dataclasses.replace(config, vllm=Vllm(url="somewhere")), quiet=True)
    assert config.out is not None and not config.out.exists()


@pytest.mark.heavy  # a single draw from a dead server is its reduced form
def test_a_server_that_dies(configure: Configure, place: tuple[str, Faults]) -> None:
    config = configure(**LITTLE)

    def killed(metrics: Any) -> None:
        if metrics["step"] == 1:
            place[1].status = {"/inference/v1/generate": [0] * 10_000}

    with mock.patch.object(servers, "WAIT", 0.001):
        with pytest.raises(UserError, match=r"no answer to /inference/v1/generate .*--resume"):
            run(config, quiet=True, on_step=killed)
        place[1].status.clear()
        assert mismatch(run(config, resume=config.out, quiet=True).out) < 1e-5


def test_another_model(draw: Callable[[], Any], double: Double) -> None:
    double.deaf = True
    for p in double.policy.model.parameters():
        p.data.mul_(1.1)
    with pytest.raises(UserError, match="does not have them"):
        draw()


def test_the_key_comes_from_the_environment(
    draw: Callable[[], Any], place: tuple[str, Faults], monkeypatch: pytest.MonkeyPatch
) -> None:
    place[1].key = "open-sesame"
    with pytest.raises(UserError, match="set VLLM_API_KEY"):
        draw()
    monkeypatch.setenv("VLLM_API_KEY", "open-sesame")
    place[1].keys.clear()
    assert draw()
    assert place[1].keys == {"Bearer open-sesame"}


def test_it_sleeps_between_draws(place: tuple[str, Faults], double: Double, share: Path, policy: Policy) -> None:
    sampler = open_sampler(Vllm(url=place[0], share=share, sleep=True), grpo())(policy, policy.likelihood())
    for _ in range(2):
        assert sampler.run([sampler.generate((7, 8), max_tokens=1, key=(1,))])
    sampler.close()
    asleep = [path for path in double.calls if path in ("/sleep", "/wake_up", "/update_weights")]
    assert asleep == ["/update_weights", "/sleep", "/wake_up", "/update_weights", "/wake_up", "/sleep"]


def test_truncated_draws_need_their_record(place: tuple[str, Faults], double: Double) -> None:
    recipe, vllm = grpo().set("source.top_p", 0.7), Vllm(url=place[0])
    with pytest.raises(
        UserError, match=r"grpo asks for .*without --return-sampling-mask.*'truncated draws' \(source Group\)"
    ):
        open_sampler(vllm, recipe)
    double.masks = True
    open_sampler(vllm, recipe)


# Before anything is loaded -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changes", "missing"),
    [
        ("rose", {}, "sampling entropy"),
        ("expo", {"source.temperature": 0.7}, "scoring"),
    ],
)
def test_recipes_that_vllm_cannot_serve(name: str, changes: dict[str, Any], missing: str) -> None:
    from policyopt.registry import get_method

    recipe = get_method(name)()
    for path, value in changes.items():
        check_engine(recipe, "local", "vllm")
        recipe = recipe.set(path, value)
    check_engine(recipe)
    with pytest.raises(UserError, match=f"'local with --sampler vllm' does not have: .*{re.escape(missing)}"):
        check_engine(recipe, "local", "vllm")


def test_engines_that_draw_by_themselves() -> None:
    with mock.patch.dict("policyopt.engine.ENGINES", {"other": "policyopt.engine.vllm"}):
        with pytest.raises(UserError, match="--sampler vllm: the engine 'other' draws by itself"):
            check_engine(grpo(), "other", "vllm")


def test_models_that_vllm_cannot_have(place: tuple[str, Faults], tiny_model: Path) -> None:
    policy = load_tiny(tiny_model)
    with pytest.raises(UserError, match="vLLM has no float64"):
        open_sampler(Vllm(url=place[0]), grpo())(policy, policy.likelihood())


def test_folders_of_processes_that_are_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from policyopt.engine.vllm import weights

    monkeypatch.setattr(weights, "Path", lambda p: tmp_path if p == "/dev/shm" else Path(p))
    (tmp_path / f"{weights.PREFIX}999999999-abc").mkdir()
    mine = weights.scratch(None)
    assert [mine] == list(tmp_path.iterdir())
    shutil.rmtree(mine)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--vllm.share .*file"):
        weights.scratch(tmp_path / "file" / "in")
