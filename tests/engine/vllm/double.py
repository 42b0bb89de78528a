"""A stand-in for vLLM, as a server with the same HTTP, on the tiny model and the local sampler."""

from __future__ import annotations

import contextlib
import copy
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import torch
from peft import PeftModel
from safetensors.torch import load_file

from policyopt.engine.local import LocalSampler
from policyopt.engine.vllm.weights import digest
from policyopt.models.causal import split_model
from policyopt.models.load import load_policy
from policyopt.models.stops import Stops
from policyopt.sources.truncation import Truncation


class Refused(Exception):
    """What the real one answers with a status other than 200."""


Asked = tuple[list[int], dict[str, Any], str | None]
"""Tokens, sampling parameters, and the adapters that are to draw."""


class Double:
    """A vLLM: draws, and takes weights in its phases and in no other order."""

    def __init__(self, model: Path, *, masks: bool = False, release: str = "0.32.0") -> None:
        self.policy = load_policy(str(model), dtype="float32", device="cpu")
        self.masks, self.release, self.weight_version = masks, release, "default"
        self.calls: list[str] = []
        self.lock, self.joins = threading.Lock(), True
        self.waiting: list[Asked] = []
        self.ready_answers: dict[int, Any] = {}
        self.ready = self.updating = self.paused = False
        self.asleep: set[str] = set()
        self.deaf = False  # takes weights and goes on with its own
        self.packed: set[str] = set()  # weights whose kernels go on reading an older copy
        self.copies: dict[str, str] = {}
        self.samplers = {None: self._sampler(self.policy.model)}
        self.seeds: list[int] = []

    def _sampler(self, net: Any) -> LocalSampler:
        return LocalSampler(split_model(net), (), "cpu")

    def generate(self, tokens: list[int], params: dict[str, Any], adapter: str | None = None) -> dict[str, Any]:
        """An answer of ``/inference/v1/generate``; what several threads ask for is drawn together."""
        asked: Asked = (tokens, params, adapter)
        self.waiting.append(asked)
        if self.joins:
            time.sleep(0.003)
        with self.lock:
            if id(asked) not in self.ready_answers:
                if self.joins:
                    batch, self.waiting = self.waiting, []
                else:
                    batch = [asked]
                for one, found in zip(batch, self.answers(batch), strict=True):
                    self.ready_answers[id(one)] = found
            found = self.ready_answers.pop(id(asked))
        if isinstance(found, Refused):
            raise found
        return found

    def answers(self, batch: list[Asked]) -> list[Any]:
        """The answers to some requests, a refusal in the place of one."""
        refused = [self._refusal(*one) for one in batch]
        fine = [one for one, no in zip(batch, refused, strict=True) if no is None]
        drawn: dict[int, Any] = {}
        for kind in {(adapter, tuple(params.get("stop") or ())) for _, params, adapter in fine}:
            mine = [one for one in fine if (one[2], tuple(one[1].get("stop") or ())) == kind]
            sampler = self.samplers[kind[0]]
            sampler.stops = Stops(self.policy.tokenizer, kind[1]) if kind[1] else None
            found = sampler.run([self._drawn(sampler, *one) for one in mine])
            drawn |= {id(one): x for one, x in zip(mine, found, strict=True)}
        return [no or drawn[id(one)] for one, no in zip(batch, refused, strict=True)]

    def _refusal(self, tokens: list[int], params: dict[str, Any], adapter: str | None) -> Refused | None:
        if self.paused or self.asleep:
            return Refused("paused or asleep")
        if adapter not in self.samplers:
            return Refused(f"the model {adapter} does not exist")
        if self.masks and (not params.get("top_k") or not params["temperature"]):
            return Refused("sampling distribution replay requires top_k > 0 and temperature > 0")
        return None

    async def _drawn(
        self, sampler: LocalSampler, tokens: list[int], params: dict[str, Any], adapter: str | None
    ) -> Any:
        self.seeds.append(params.get("seed", -1))
        cut = Truncation(params.get("top_p", 1.0), params.get("top_k") or None, params.get("min_p", 0.0))
        [drawn] = await sampler.generate(
            tokens, max_tokens=params["max_tokens"], temperature=params["temperature"], key=(params.get("seed", 0),),
            stop=[(t,) for t in params.get("stop_token_ids", ())], top=max(1, params["logprobs"]), truncation=cut,
        )  # fmt: skip
        said: list[Any] = []
        if params.get("prompt_logprobs") is not None:
            scored = await sampler.logprobs(tuple(tokens[:1]), tuple(tokens[1:]), temperature=1.0)
            said = [{str(t): {"logprob": x}} for t, x in zip(tokens[1:], scored.logp, strict=True)]
        content = [
            {"token_id": t, "logprob": x, "top_logprobs": counted(t, x, top, max(1, params["logprobs"]))}
            for t, x, top in zip(drawn.tokens, drawn.logp, drawn.top)
        ]
        whole = list(range(sampler.vocab))
        choice = {
            "index": 0, "token_ids": drawn.tokens, "logprobs": {"content": content}, "finish_reason": drawn.stop_reason,
            "sampling_mask": [list(s) or whole for s in drawn.supports] if self.masks else None,
            "weight_versions": [{"version": self.weight_version, "start": 0, "end": len(drawn.tokens)}],
        }  # fmt: skip
        return {"choices": [choice], "model": adapter, "prompt_logprobs": [None, *said] if said else None}

    # Weights

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def init_transfer(self) -> None:
        self.ready = True

    def start(self) -> None:
        if not self.ready or self.updating:
            raise Refused("not initialised, or an update is under way")
        self.updating = True

    def update(self, folder: str) -> None:
        if not self.updating:
            raise Refused("start_weight_update must be called before update_weights")
        found = {k: v for file in Path(folder).glob("*.safetensors") for k, v in load_file(file).items()}
        named = dict(self.policy.model.named_parameters())
        assert found.keys() == named.keys()
        with torch.no_grad():
            for name, p in named.items() if not self.deaf else ():
                if name in self.packed:
                    self.copies[name] = digest(found[name])
                else:
                    p.copy_(found[name])

    def finish(self, version: str | None) -> None:
        if not self.updating:
            raise Refused("finish_weight_update without start_weight_update")
        self.updating = False
        self.weight_version = version or self.weight_version
        self.samplers[None].forget()

    def checksums(self) -> dict[str, str]:
        found = {n: digest(p) for n, p in self.policy.model.named_parameters()} | self.copies
        return {f"dp0:pp0:pcp0:tp0:{n}": x for n, x in found.items()}

    def load_adapter(self, name: str, folder: str) -> None:
        self.samplers[name] = self._sampler(PeftModel.from_pretrained(copy.deepcopy(self.policy.model), folder).eval())

    def unload_adapter(self, name: str) -> None:
        del self.samplers[name]

    def sleep(self, level: int) -> None:
        self.asleep = {"weights", "kv_cache"}
        if level == 2:
            with torch.no_grad():
                for p in self.policy.model.parameters():
                    p.zero_()

    def wake(self, tag: str) -> None:
        self.asleep.discard(tag)


def counted(token: int, logp: float, top: Any, most: int) -> list[dict[str, Any]]:
    """As the real server lists the likeliest tokens: the one that was drawn is the first and counts."""
    rows = [(token, logp), *((i, p) for i, p in zip(*top) if i != token)]
    return [{"token_id": i, "logprob": p} for i, p in rows[:most]]


# The server ------------------------------------------------------------------------------------------------------------


def answer(double: Double, path: str, query: dict[str, list[str]], body: dict[str, Any]) -> Any:
    match path:
        case "/version":
            return {"version": double.release}
        case "/weight_info":
            return {"weight_version": double.weight_version}
        case "/inference/v1/generate":
            return double.generate(body["token_ids"], body["sampling_params"], body.get("model"))
        case "/pause":
            double.pause()
        case "/resume":
            double.resume()
        case "/init_weight_transfer_engine":
            assert body["init_info"] == {}
            double.init_transfer()
        case "/start_weight_update":
            double.start()
        case "/update_weights":
            double.update(body["update_info"]["path"])
        case "/finish_weight_update":
            double.finish(body.get("weight_version"))
        case "/weight_checker":
            assert body == {"action": "checksum"}
            return {"checksums": double.checksums()}
        case "/v1/load_lora_adapter":
            double.load_adapter(body["lora_name"], body["lora_path"])
            return "Success"
        case "/v1/unload_lora_adapter":
            double.unload_adapter(body["lora_name"])
            return "Success"
        case "/sleep":
            double.sleep(int(query["level"][0]))
        case "/wake_up":
            double.wake(query["tags"][0])
        case _:
            return None
    return {"message": "done"}


class Faults:
    """What a server does beside what it should."""

    def __init__(self) -> None:
        self.missing: set[str] = set()
        self.status: dict[str, list[int]] = {}
        """By path, the statuses of the next answers."""
        self.change: dict[str, Any] = {}
        """By path, a function of the answer."""
        self.key = ""
        self.keys: set[str] = set()


@contextlib.contextmanager
def served(double: Double) -> Iterator[tuple[str, Faults]]:
    """The address of a double, on a free port of this machine, and its faults."""
    faults = Faults()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            size = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(size) or b"{}")
            address = urlsplit(self.path)
            path = address.path
            double.calls.append(path)
            faults.keys.add(self.headers.get("authorization", ""))
            if faults.key and self.headers.get("authorization") != f"Bearer {faults.key}":
                return self._say(401, {"error": "Unauthorized"})
            if faults.status.get(path):
                status = faults.status[path].pop(0)
                if not status:  # it dies in the middle
                    self.close_connection = True
                    return self.connection.shutdown(2)
                return self._say(status, {"error": "out of order"})
            try:
                found = None if path in faults.missing else answer(double, path, parse_qs(address.query), body)
            except Refused as error:
                return self._say(400, {"error": {"message": str(error)}})
            if found is None:
                return self._say(404, {"detail": "Not Found"})
            return self._say(200, faults.change.get(path, lambda x: x)(found))

        do_GET = do_POST

        def _say(self, status: int, found: Any) -> None:
            data = (found if isinstance(found, str) else json.dumps(found)).encode()
            self.send_response(status)
            self.send_header("content-type", "text/plain" if isinstance(found, str) else "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", faults
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
