"""The hub: pushing to a stand-in by its own protocol, and what is said where there is none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from policyopt import hub
from policyopt.errors import UserError
from tests.commands import Said
from tests.hub import Hub, standing_in

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with standing_in(monkeypatch) as there:
        yield there


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", NOWHERE)


@pytest.fixture
def ended(tmp_path: Path) -> Path:
    """The folder of a run that has ended."""
    out = tmp_path / "out"
    for name in ("model", "best", "tensorboard"):
        (out / name).mkdir(parents=True)
    for name in ("model", "best"):
        (out / name / "config.json").write_text("{}")
        (out / name / "README.md").write_text(f"# {name}")
        (out / name / "model.safetensors").write_bytes(name.encode() * 100)
    (out / "tensorboard" / "events.out.tfevents.1").write_bytes(b"curve")
    return out


def test_a_model_is_pushed_with_its_card_and_its_curves(
    stand_in: Hub, ended: Path, command: Callable[..., Said]
) -> None:
    said = command("push", ended, "me/sums")
    assert said.code == 0, said.err
    assert said.out.strip() == f"{stand_in.address}/me/sums"
    assert stand_in.files == {
        "me/sums/config.json": b"{}",
        "me/sums/README.md": b"# model",
        "me/sums/model.safetensors": b"model" * 100,
        "me/sums/tensorboard/events.out.tfevents.1": b"curve",
    }
    made = stand_in.repositories["me/sums"]
    assert made.get("private") is True or made.get("visibility") == "private"
    assert stand_in.tokens == {"Bearer hf_secret"}


def test_the_best_model_is_pushed_for_everybody_where_that_is_asked_for(
    stand_in: Hub, ended: Path, command: Callable[..., Said]
) -> None:
    assert command("push", ended, "me/sums", "--best", "--public").code == 0
    assert stand_in.files["me/sums/model.safetensors"] == b"best" * 100
    made = stand_in.repositories["me/sums"]
    assert made.get("private") is False or made.get("visibility") == "public"


def test_a_push_that_is_refused_says_why_without_the_token(
    stand_in: Hub, ended: Path, command: Callable[..., Said]
) -> None:
    stand_in.refuse = "no rights for hf_secret"
    said = command("push", ended, "me/sums")
    assert said.code == 2
    assert said.err.startswith("policyopt: push me/sums: ")
    assert "403" in said.err
    assert "hf_secret" not in said.err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["out"], "push takes the folder of a run and the id of a repository"),
        (["out", "sums"], "push: expected owner/name in letters, digits, '-', '_' and '.', not 'sums'"),
        (["missing", "me/sums"], "there is no model in missing/model; a run that has not ended has none"),
        (["out", "me/sums", "--pubic"], "there is no option --pubic; nearest: --public"),
    ],
)
def test_what_cannot_be_pushed(line: list[str], words: str, ended: Path, command: Callable[..., Said]) -> None:
    said = command("push", *line)
    assert said.code == 2
    assert words in said.words


def test_nothing_is_pushed_without_a_token(
    ended: Path, command: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert "set HF_TOKEN in the environment" in command("push", ended, "me/sums").words
    said = command("train", "grpo", "--push-to-hub", "me/sums", "--out", "new")
    assert (said.code, "set HF_TOKEN in the environment" in said.words) == (2, True)
    assert not Path("new").exists()


@pytest.mark.usefixtures("unreachable")
def test_a_hub_that_cannot_be_reached_is_told_of_at_once(command: Callable[..., Said]) -> None:
    start = time.monotonic()
    for line in (["train", "grpo"], ["eval"], ["sample"]):
        said = command(*line, "--model", "nobody/nothing")
        assert said.code == 2
        assert f"the hub ({NOWHERE}) cannot be reached" in said.words
    assert time.monotonic() - start < 5


@pytest.mark.usefixtures("unreachable")
def test_a_model_in_the_cache_is_taken_without_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda name, file: f"/cache/{name}/{file}")
    assert hub.only_cached("--model", "somebody/something") is True
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda name, file: None)
    with pytest.raises(UserError, match="cannot be reached"):
        hub.only_cached("--model", "somebody/something")


def test_a_hub_that_does_not_answer_is_waited_for_no_longer_than_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        def head(self, *_: object, **__: object) -> None:
            time.sleep(2)

    monkeypatch.setattr("huggingface_hub.utils.get_session", Slow)
    monkeypatch.setattr(hub, "SECONDS", 0.1)
    start = time.monotonic()
    assert not hub.reachable()
    assert time.monotonic() - start < 1


def test_datasets_fail_at_once_where_the_hub_cannot_be_reached(unreachable: None) -> None:
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    with hub.quickly():
        assert datasets.config.HF_HUB_OFFLINE is True
    assert before == datasets.config.HF_HUB_OFFLINE
