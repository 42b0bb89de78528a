"""What outlives a server that ends, cleanly or not."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import warnings
from pathlib import Path
from typing import Any

import pytest
import tinker
import torch

from policyopt.serve import service
from tests.commands import Said
from tests.serve.data import datum, logprobs, texts
from tests.serve.server import ROOT, end, here, start

warnings.filterwarnings("ignore", category=FutureWarning, module="tinker")

DATA = [datum(t) for t in texts(7, 5, 9)]


def steps(training: Any, n: int) -> None:
    for _ in range(n):
        training.forward_backward(DATA, "cross_entropy")
        training.optim_step(tinker.AdamParams(learning_rate=0.02, weight_decay=0.01)).result()


def state(inside: Any, name: str) -> dict[str, torch.Tensor]:
    trained = inside.held.get(name)
    return {n: x.clone() for n, x in (trained.adapters() | trained.rest(gradient=True)).items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(x, other[n]) for n, x in one.items())


def reconnected(client: Any, url: str) -> Any:
    """A client of the server that ran before, at its new address."""
    for pools in client.holder._client_pools.values():
        pools._constructor_kwargs["base_url"] = url
        pools._clients.clear()
        pools._client_active_refcount.clear()
    return client


def test_a_server_that_ends_cleanly_goes_on_where_it_was(tiny_model: Path, tmp_path: Path) -> None:
    with here(tiny_model, tmp_path) as (url, inside):
        client = tinker.ServiceClient(base_url=url)
        training = client.create_lora_training_client(base_model=str(tiny_model), rank=3, seed=1).result()
        steps(training, 2)
        sampler = training.save_weights_and_get_sampling_client().result()
        prompt, params = tinker.ModelInput.from_ints(texts(5)[0]), tinker.SamplingParams(max_tokens=6, seed=1)
        drawn = sampler.sample(prompt, 2, params).result()
        training.forward_backward(DATA, "cross_entropy").result()  # half a step
        # What nobody has fetched yet is there afterwards, too.
        late = inside.desk.submit(service.Job(f"{training.model_id}:900", lambda: {"metrics": {"n": 1.0}}))
        late.answer.result(30)
        before = state(inside, training.model_id)
    with here(tiny_model, tmp_path) as (url, inside):
        reconnected(client, url)
        assert same(state(inside, training.model_id), before)
        assert any("gradient/" in n for n in before)
        assert inside.desk.find(late.id, inside.knows).answer.result() == {"metrics": {"n": 1.0}}
        again = sampler.sample(prompt, 2, params).result()
        assert [s.tokens for s in again.sequences] == [s.tokens for s in drawn.sequences]
        training.optim_step(tinker.AdamParams(learning_rate=0.02)).result()
        after = state(inside, training.model_id)
        assert not same(after, before)
        # The state of the earlier end is gone now that the model has moved on: no kill brings it back.
        assert inside.store.live(training.model_id) is None


def test_a_server_that_is_killed_goes_on_from_what_was_saved(tiny_model: Path, tmp_path: Path) -> None:
    with here(tiny_model, tmp_path, clean=False) as (url, inside):
        client = tinker.ServiceClient(base_url=url)
        training = client.create_lora_training_client(base_model=str(tiny_model), rank=3, seed=1).result()
        steps(training, 2)
        path = training.save_state("two").result().path
        sampler = training.save_weights_for_sampler("two").result().path
        steps(training, 2)
        expected = state(inside, training.model_id)
    scrap = inside.store.find(path).folder.with_name("tmp-three")  # half a checkpoint
    scrap.mkdir()
    (scrap / "adapter_model.safetensors").write_bytes(b"half")
    taken = inside.store.find(path).folder  # ... and one that was about to be replaced
    taken.rename(taken.with_name("tmp-old-two"))
    with here(tiny_model, tmp_path) as (url, inside):
        reconnected(client, url)
        assert not scrap.exists()
        assert taken.is_dir()
        with pytest.raises(Exception, match=r"the server ended without saving them\. Load the last state"):
            training.forward(DATA, "cross_entropy").result()
        training.load_state_with_optimizer(path).result()
        steps(training, 2)
        assert same(state(inside, training.model_id), expected)
        new = client.create_training_client_from_state_with_optimizer(path).result()
        steps(new, 2)
        assert same(state(inside, new.model_id), expected)
        fresh = client.create_training_client_from_state(path).result()
        steps(fresh, 2)
        assert not same(state(inside, fresh.model_id), expected)
        with pytest.raises(tinker.BadRequestError, match="without the optimiser's state"):
            client.create_training_client_from_state_with_optimizer(sampler).result()
        other = client.create_lora_training_client(base_model=str(tiny_model), rank=4).result()
        with pytest.raises(tinker.BadRequestError, match="has adapters"):
            other.load_state(path).result()
        weights = inside.store.find(path).folder / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-10])
        with pytest.raises(Exception, match="is damaged on the server's disk"):
            client.create_training_client_from_state(path).result()
        assert logprobs(new.forward(DATA, "cross_entropy").result())


def test_unnamed_weights_are_kept_for_a_while(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "SNAPSHOTS", 2)
    with here(tiny_model, tmp_path) as (url, inside):
        client = tinker.ServiceClient(base_url=url)
        training = client.create_lora_training_client(base_model=str(tiny_model), rank=2).result()
        samplers = [training.save_weights_and_get_sampling_client().result() for _ in range(3)]
        prompt, params = tinker.ModelInput.from_ints([5, 6]), tinker.SamplingParams(max_tokens=2)
        for sampler in samplers[1:]:
            assert sampler.sample(prompt, 1, params).result().sequences
        with pytest.raises(tinker.NotFoundError, match="the newest 2 of a model are kept"):
            samplers[0].sample(prompt, 1, params).result()
        assert len(inside.store.things["samplers"]) == 2


def test_the_example_trains(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    example = importlib.import_module("tinker_client")
    for name, n in (("STEPS", 2), ("QUESTIONS", 2), ("GROUP", 4)):
        monkeypatch.setattr(example, name, n)
    with here(tiny_model, tmp_path) as (url, inside):
        monkeypatch.setenv("TINKER_BASE_URL", url)
        # An untrained model is never right: here every response of an even length is.
        monkeypatch.setattr(example, "is_right", lambda text, answer: len(text) % 2 == 0)
        example.main()
        said = capsys.readouterr().out
        assert re.search(r"step 1: 0\.\d\d right", said)
        saved = inside.store.find(said.split()[-1])
        assert saved.record["steps"] == 2


def test_a_process_that_is_interrupted(tiny_model: Path, tmp_path: Path) -> None:
    process, url = start(tiny_model, tmp_path / "state")
    try:
        training = (
            tinker.ServiceClient(base_url=url).create_lora_training_client(base_model=str(tiny_model), rank=3).result()
        )
        steps(training, 1)
        training.forward(DATA, "cross_entropy")  # somebody waits
    finally:
        said = end(process)
    assert process.returncode == 0
    assert said.splitlines()[-1].startswith("ended: clients go on")
    assert "Traceback" not in said
    assert (tmp_path / "state" / "checkpoints" / training.model_id / "live").is_dir()
    assert isinstance(json.loads((tmp_path / "state" / "results.json").read_text()), list)


@pytest.mark.heavy
def test_a_process_that_is_killed(tiny_model: Path, tmp_path: Path) -> None:
    process, url = start(tiny_model, tmp_path / "state")
    try:
        client = tinker.ServiceClient(base_url=url)
        training = client.create_lora_training_client(base_model=str(tiny_model), rank=3, seed=1).result()
        steps(training, 1)
        path = training.save_state("one").result().path
        steps(training, 2)
        expected = logprobs(training.forward(DATA, "cross_entropy").result())
    finally:
        end(process, signal.SIGKILL)
    process, url = start(tiny_model, tmp_path / "state", port=int(url.rpartition(":")[2]))
    try:  # the same client, at the same address
        training.load_state_with_optimizer(path).result()
        steps(training, 2)
        assert logprobs(training.forward(DATA, "cross_entropy").result()) == expected
    finally:
        end(process, signal.SIGTERM)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--host 0.0.0.0", "--host 0.0.0.0: others can reach this address"),
        ("--port 70000", "port: expected at most 65535"),
        ("--model missing/folder/x", "--model missing/folder/x: there is no such folder"),
        ("--task chain_smu", "no task is called 'chain_smu'"),
        ("--prot 1", "--port"),
    ],
)
def test_a_line_that_cannot_be(line: str, said: str, command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POLICYOPT_SERVE_TOKEN", raising=False)
    found: Said = command("serve", "--folder", "state", *line.split())
    assert found.code == 2
    assert said in found.err
    assert not os.path.exists("state/sessions") or line.startswith("--model")
