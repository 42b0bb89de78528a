"""What a server says to requests that it cannot serve, and what it holds."""

from __future__ import annotations

import io
import json
import tarfile
import threading
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tinker

from policyopt.errors import UserError
from policyopt.serve import app, desk
from policyopt.serve.desk import Desk, Job
from policyopt.serve.refused import Refused
from policyopt.serve.server import listening, token_for
from policyopt.serve.store import opened
from policyopt.serve.wire import Limits, proto, read_forward
from tests.serve.data import datum, logprobs, texts
from tests.serve.server import serving

warnings.filterwarnings("ignore", category=FutureWarning, module="tinker")

LIMITS = Limits(vocab=100, context=8)


def call(url: str, path: str, body: Any = None, method: str | None = None, **headers: str) -> tuple[int, Any, Any]:
    """The status, what was said, and the headers."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    given = {"X-API-Key": "tml-any", "Content-Type": "application/json"} | {
        k.replace("_", "-"): v for k, v in headers.items()
    }
    request = urllib.request.Request(f"{url}{path}", data, given, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            said = answer.read()
            return answer.status, json.loads(said) if said[:1] in (b"{", b"[") else said, answer.headers
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())["detail"], error.headers


# Data -----------------------------------------------------------------------------------------------------------------


def message(loss: str = "cross_entropy", config: dict[str, float] | None = None, **columns: Any) -> Any:
    """Two texts, the second with other columns than it should have."""
    from tinker import types
    from tinker.proto.request_conv import forward_backward_request_to_proto

    fine = {"target_tokens": np.array([2, 3, 4])}
    if loss != "cross_entropy":
        fine |= {name: np.ones(3, dtype=np.float32) for name in ("logprobs", "advantages")}
    tokens = columns.pop("tokens", [1, 2, 3])
    other = {k: v for k, v in (fine | columns).items() if v is not None}
    data = [types.Datum(model_input=types.ModelInput.from_ints(t), loss_fn_inputs=c) for t, c in (([1, 2, 3], fine), (tokens, other))]  # fmt: skip
    asked = types.ForwardBackwardInput(data=data, loss_fn=loss, loss_fn_config=config)  # type: ignore[arg-type]
    return forward_backward_request_to_proto(
        types.ForwardBackwardRequest(forward_backward_input=asked, model_id="m", seq_id=1)
    )


def floats(*x: float) -> np.ndarray:
    return np.array(x, dtype=np.float32)


@pytest.mark.parametrize(
    ("loss", "wrong", "said"),
    [
        ("cross_entropy", {"tokens": []}, "data[1].model_input holds no tokens"),
        ("cross_entropy", {"tokens": [1, 100, 3]}, "data[1].model_input holds the id 100: those of the model are 0 to 99"),
        ("cross_entropy", {"tokens": [1, -1, 3]}, "data[1].model_input holds the id -1"),
        ("cross_entropy", {"tokens": [1] * 9}, "data[1].model_input has 9 tokens: the model reads at most 8"),
        ("cross_entropy", {"target_tokens": np.array([2, 3])}, "['target_tokens'] has shape [2] of int64"),
        ("cross_entropy", {"target_tokens": floats(2, 3, 4)}, "['target_tokens'] has shape [3] of float32"),
        ("cross_entropy", {"target_tokens": np.array([2, 3, 4000])}, "['target_tokens'] holds the id 4000"),
        ("cross_entropy", {"target_tokens": None}, "data[1].loss_fn_inputs lacks target_tokens"),
        ("cross_entropy", {"weights": floats(1, 2)}, "['weights'] has shape [2], target_tokens [3]: they have to agree"),
        ("cross_entropy", {"weights": floats(1, np.nan, 1)}, "['weights'] holds numbers that are not finite"),
        ("cross_entropy", {"advantages": floats(1, 1, 1)}, "['advantages']: cross_entropy reads target_tokens, weights alone"),
        ("ppo", {"logprobs": None}, "data[1].loss_fn_inputs lacks logprobs, which ppo reads"),
        ("ppo", {"advantages": floats(1, np.inf, 1)}, "['advantages'] holds numbers that are not finite"),
        ("ppo", {"config": {"clip_high": 2.0}}, "loss_fn_config['clip_high']: ppo has no such setting; it has clip_low_threshold"),
        ("ppo", {"config": {"clip_low_threshold": 1.2}}, "the thresholds are ratios"),
        ("cispo", {"config": {"clip_high_threshold": float("nan")}}, "a number from 0 on is needed"),
        ("stable_reinforce", {}, "loss_fn 'stable_reinforce' is not served here"),
    ],
)  # fmt: skip
def test_malformed_data_is_refused_by_its_field(loss: str, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused) as caught:
        read_forward(message(loss, **wrong).SerializeToString(), LIMITS)
    assert said in str(caught.value)
    assert caught.value.status == 400


def spoilt(change: Callable[[Any], None]) -> bytes:
    found = message()
    change(found)
    return bytes(found.SerializeToString())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (lambda: b"\xff\xff\xff", "is no ForwardBackwardRequest"),
        (lambda: b"", "loss_fn '' is not served here"),
        (lambda: spoilt(lambda m: m.ClearField("data")), "data has 0 texts"),
        (lambda: spoilt(lambda m: setattr(m.data[1].model_input[0].encoded_text, "tokens", b"abc")), "cut short"),
        (lambda: spoilt(lambda m: setattr(m.data[1].model_input.add().image, "data", b"x")), "chunks[1] is image"),
        (lambda: spoilt(lambda m: m.data[1].loss_fn_inputs["weights"].shape.append(-1)), "float32 or int64"),
        (lambda: spoilt(lambda m: m.data[1].loss_fn_inputs["target_tokens"].shape.append(1 << 40)), "at most"),
        (lambda: spoilt(lambda m: m.data[1].loss_fn_inputs["target_tokens"].shape.append(2)), "do not make shape [3, 2]"),
    ],
)  # fmt: skip
def test_spoilt_bytes_are_refused(body: Callable[[], bytes], said: str) -> None:
    sent = body()
    with pytest.raises(Refused) as caught:
        read_forward(sent, LIMITS)
    assert said in str(caught.value)


def test_a_sparse_matrix_that_is_none() -> None:
    found = message()
    column = found.data[1].loss_fn_inputs["weights"]
    column.dtype = proto().DTYPE_FLOAT32
    column.shape.extend([3, 2])
    column.sparse_csr.values = floats(1, 2).tobytes()
    for starts, columns in (
        ([0, 1, 2], [0, 1]),
        ([0, 1, 1, 2], [0, 5]),
        ([0, 3, 1, 2], [0, 1]),
        ([0, 1, 1, 3], [0, 1]),
    ):
        column.sparse_csr.crow_indices = np.array(starts, dtype=np.int64).tobytes()
        column.sparse_csr.col_indices = np.array(columns, dtype=np.int64).tobytes()
        with pytest.raises(Refused, match="do not make shape"):
            read_forward(found.SerializeToString(), LIMITS)


# Requests -------------------------------------------------------------------------------------------------------------


def test_requests_that_are_turned_away(
    served: Any, client: Any, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{served[0]}/api/v1"
    training = client.create_lora_training_client(base_model=str(tiny_model), rank=2).result()
    name = training.model_id
    monkeypatch.setattr(app, "MAX_BODY", 1000)
    for path, body, status, said in [
        ("/copy_weights", {}, 404, "POST /api/v1/copy_weights: policyopt serve has no such route"),
        ("/training_runs", {}, 405, "the route takes another method"),
        ("/create_session", b"{", 400, "the body is not JSON"),
        ("/create_session", {"tags": [], "user_metadata": None, "sdk_version": "1", "colour": "red"}, 400, "colour"),
        ("/create_session", b" " * 2000, 413, "more than 0 MiB"),
        ("/optim_step", {"model_id": "nobody", "seq_id": 1, "adam_params": {}}, 404, "model_id 'nobody'"),
        ("/optim_step", {"model_id": name, "seq_id": 9, "adam_params": {"beta1": 1.0}}, 400, "adam_params.beta1 1"),
        ("/optim_step", {"model_id": name, "seq_id": 9, "adam_params": {"learning_rate": -1}}, 400, "learning_rate -1"),
        ("/optim_step", {"model_id": name, "adam_params": {}}, 400, "seq_id is missing"),
        ("/retrieve_future", {"request_id": "what"}, 404, "request_id 'what': this server has no such request"),
        ("/retrieve_future", {"request_id": f"{name}:77"}, 410, "is not here any more"),
        ("/load_weights", {"model_id": name, "seq_id": 9, "path": "tinker://a/weights/..", "optimizer": True}, 404, "no such checkpoint"),
        ("/load_weights", {"model_id": name, "seq_id": 9, "path": "/etc", "optimizer": True}, 400, "no address of a checkpoint"),
        ("/session_heartbeat", {"session_id": "x"}, 404, "session_id 'x'"),
        ("/forward_backward", b"", 415, "application/x-protobuf alone"),
    ]:  # fmt: skip
        found = call(url, path, body)
        assert (found[0], said in found[1]) == (status, True), (path, found)
    monkeypatch.undo()
    assert call(url, "/get_server_capabilities", X_API_Key="")[0] == 401
    assert call(url, "/get_server_capabilities", Host="evil.example")[0] == 403
    assert call(url, "/healthz", X_API_Key="")[:2] == (200, {"status": "ok"})

    with pytest.raises(tinker.BadRequestError, match="this server has"):
        client.create_lora_training_client(base_model="Qwen/Qwen3-8B").result()
    with pytest.raises(tinker.BadRequestError, match="rank 100000"):
        client.create_lora_training_client(base_model=str(tiny_model), rank=100000).result()
    with pytest.raises(Exception, match="optim_step without a gradient"):
        training.optim_step(tinker.AdamParams()).result()
    with pytest.raises(tinker.BadRequestError, match=r"data\[0\]\.loss_fn_inputs"):
        training.forward_backward([datum([5, 6, 7], weights=[1.0])], "cross_entropy").result()
    for wrong in ("a/b", "..", "tmp-a", "x" * 200):
        with pytest.raises(Exception, match="a name of 1 to 128 letters"):
            training.save_state(wrong).result()
    training.save_state("taken").result()
    with pytest.raises(Exception, match="has that name"):
        training.save_state("taken").result()
    training.save_state("taken", overwrite=True).result()
    assert logprobs(training.forward([datum([5, 6, 7])], "cross_entropy").result())


def test_a_request_that_comes_twice_counts_once(served: Any, client: Any, tiny_model: Path) -> None:
    training = client.create_lora_training_client(base_model=str(tiny_model), rank=2).result()
    training.forward_backward([datum(texts(6)[0])], "cross_entropy").result()
    body = {"model_id": training.model_id, "seq_id": 50, "adam_params": {"learning_rate": 0.1}}
    promises = [call(served[0], "/api/v1/optim_step", body)[1] for _ in range(3)]
    answers = [call(served[0], "/api/v1/retrieve_future", {"request_id": p["request_id"]})[1] for p in promises]
    assert answers[0]["metrics"]["grad_norm"] > 0
    assert answers == [answers[0]] * 3
    assert served[1].held.get(training.model_id).steps == 1


def test_a_full_desk_asks_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    free = threading.Event()
    found = Desk(lambda *_: None, 2)
    found.start()
    jobs = [found.submit(Job(f"m:{i}", lambda: (free.wait(30), {"n": 1})[1])) for i in range(2)]  # type: ignore[arg-type]
    with pytest.raises(Refused, match="2 requests wait") as caught:
        found.submit(Job("m:2", dict))
    assert (caught.value.status, caught.value.retry_after) == (429, 1)
    assert app._refusal(caught.value).headers["Retry-After"] == "1"
    free.set()
    assert jobs[1].answer.result(30) == {"n": 1}
    with pytest.raises(Refused):  # results that wait to be fetched are held, too
        found.submit(Job("m:2", dict))
    found.fetched(jobs[0])
    assert found.submit(Job("m:2", dict)).answer.result(30) == {}
    assert found.find("m:0", lambda name: True) is jobs[0]
    monkeypatch.setattr(desk, "KEPT", -1.0)  # nobody has fetched the others for long
    found.submit(Job("m:3", dict)).answer.result(30)
    with pytest.raises(Refused) as caught:
        found.find("m:1", lambda name: True)
    assert caught.value.status == 410
    found.stop()


def test_a_large_request_counts_by_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Desk(lambda *_: None, 100)
    monkeypatch.setattr(desk, "HELD_BYTES", 1000)
    found.submit(Job("m:0", dict, size=1001))
    with pytest.raises(Refused, match="wait already"):
        found.submit(Job("m:1", dict, size=1))


def test_what_a_server_holds_is_listed(client: Any, served: Any, tiny_model: Path) -> None:
    rest = tinker.RestClient(base_url=served[0])
    training = client.create_lora_training_client(
        base_model=str(tiny_model), rank=2, train_mlp=False, user_metadata={"who": "me"}
    ).result()
    one = training.save_state("one", ttl_seconds=3600, user_metadata={"n": "1"}).result().path
    two = training.save_weights_for_sampler("two").result().path
    run = rest.get_training_run(training.model_id).result()
    assert (run.base_model, run.lora_rank, run.user_metadata) == (str(tiny_model), 2, {"who": "me"})
    assert (run.last_checkpoint.tinker_path, run.last_sampler_checkpoint.tinker_path) == (one, two)
    assert rest.list_training_runs(limit=1).result().training_runs[0].training_run_id == training.model_id
    listed = rest.list_checkpoints(training.model_id).result().checkpoints
    assert [(c.checkpoint_id, c.checkpoint_type) for c in listed] == [
        ("sampler_weights/two", "sampler"),
        ("weights/one", "training"),
    ]
    assert listed[1].user_metadata == {"n": "1"} and listed[1].expires_at > listed[1].time
    assert listed[0].expires_at is None
    info = rest.get_weights_info_by_tinker_path(one).result()
    assert (info.base_model, info.lora_rank, info.train_mlp, info.train_attn) == (str(tiny_model), 2, False, True)
    session = rest.get_session(client.holder.get_session_id()).result()
    assert session.training_run_ids == [training.model_id]
    status, data, _ = call(
        served[0], f"/api/v1/training_runs/{training.model_id}/checkpoints/sampler_weights/two/archive"
    )  # it leads to another address
    assert status == 200
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert set(tar.getnames()) == {"adapter_model.safetensors", "adapter_config.json", "checkpoint.json"}
    external = training.save_weights_external("out").result().path
    urls = rest.get_external_weights_urls(external).result().urls
    assert set(urls) == {"adapter_model.safetensors", "adapter_config.json"}
    assert call(urls["adapter_config.json"], "", X_API_Key="")[1]["r"] == 2
    place = urls["adapter_config.json"]
    for wrong, code in (
        (place.replace("adapter_config.json", "checkpoint.json"), 403),
        (place.replace("/download/", "/download/9"), 403),
    ):
        assert call(wrong, "")[0] == code
    rest.delete_checkpoint_from_tinker_path(external).result()
    assert call(place, "")[0] == 404
    rest.set_checkpoint_ttl_from_tinker_path(one, None).result()
    assert rest.list_checkpoints(training.model_id).result().checkpoints[1].expires_at is None
    rest.delete_checkpoint_from_tinker_path(two).result()
    assert [c.tinker_path for c in rest.list_checkpoints(training.model_id).result().checkpoints] == [one]
    with pytest.raises(tinker.NotFoundError, match="no such checkpoint"):
        client.create_sampling_client(model_path=two).result()
    total = rest.list_user_checkpoints().result().cursor.total_count
    assert total >= 1

    client.close("success").result()
    answer = call(served[0], "/api/v1/optim_step", {"model_id": training.model_id, "seq_id": 90, "adam_params": {}})
    said = call(served[0], "/api/v1/retrieve_future", {"request_id": answer[1]["request_id"]})[1]
    assert said["category"] == "user" and "it was unloaded" in said["error"]


# Addresses and keys ---------------------------------------------------------------------------------------------------


def test_an_address_of_others_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POLICYOPT_SERVE_TOKEN", raising=False)
    assert token_for("127.0.0.1") is None
    with pytest.raises(UserError, match=r"--host 0.0.0.0: others can reach .* set POLICYOPT_SERVE_TOKEN"):
        token_for("0.0.0.0")
    for weak in ("secret-secret-secret-secret", "tml-short"):
        monkeypatch.setenv("POLICYOPT_SERVE_TOKEN", weak)
        with pytest.raises(UserError, match="begin with tml-"):
            token_for("127.0.0.1")
    monkeypatch.setenv("POLICYOPT_SERVE_TOKEN", "tml-0123456789abcdef")
    assert token_for("0.0.0.0") == token_for("127.0.0.1") == "tml-0123456789abcdef"


def test_a_key_is_compared(served: Any) -> None:
    with listening("127.0.0.1", 0) as found:
        stop = serving(served[1], "tml-0123456789abcdef", found)
        url = f"http://127.0.0.1:{found.getsockname()[1]}"
        path = "/api/v1/get_server_capabilities"
        assert [call(url, path, X_API_Key=k)[0] for k in ("tml-0123456789abcdeg", "tml-0123456789abcdef")] == [401, 200]
        assert call(url, path, X_API_Key="", Authorization="Bearer tml-0123456789abcdef")[0] == 200
        assert call(url, path, X_API_Key="\xff")[0] == 401
        stop()


def test_a_port_and_a_folder_belong_to_one(tmp_path: Path) -> None:
    with listening("127.0.0.1", 0) as found:
        port = found.getsockname()[1]
        with pytest.raises(UserError, match=f"--port {port}: .*choose another"), listening("127.0.0.1", port):
            pass
    with opened(tmp_path / "state"):
        with pytest.raises(UserError, match="another server has it"), opened(tmp_path / "state"):
            pass
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--folder .*file: it cannot be written"), opened(tmp_path / "file"):
        pass
