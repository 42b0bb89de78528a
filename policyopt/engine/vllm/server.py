"""A vLLM that runs as a server, over HTTP."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

try:
    import httpx2 as httpx
except ImportError:  # huggingface_hub brings one of the two
    import httpx  # type: ignore[no-redef]

from policyopt.engine.vllm.backend import Drawn, Params
from policyopt.errors import UserError, first_line

KEY = "VLLM_API_KEY"
"""The environment variable that may hold the key; it is written nowhere."""
LONGEST = 1800.0
"""Seconds that one answer may take."""
CONNECT = 10.0
"""Seconds until a connection stands."""
TRIES = 4
WAIT = 0.5
"""Seconds before the second try; they double with every further one."""

START = (
    "VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --enable-scale-out --logprobs-mode processed_logprobs "
    """--weight-transfer-config '{"backend": "policyopt"}'"""
)
"""How a server is started, for people."""


class ServerBackend:
    """A :class:`~policyopt.engine.vllm.backend.Backend` behind an address; at most ``rows`` requests are in flight."""

    def __init__(self, url: str, rows: int) -> None:
        self.url, self.rows = url.rstrip("/"), rows
        self.name = f"the vLLM server at {self.url}"
        self._headers = {"Authorization": f"Bearer {key}"} if (key := os.environ.get(KEY)) else {}
        self._timeout = httpx.Timeout(LONGEST, connect=CONNECT)
        self._client: Any = None
        self._adapter: str | None = None

    # Reaching it -----------------------------------------------------------------------------------------------------

    def release(self) -> str:
        """Its version of vLLM."""
        return str(self._field(self._call("GET", "/version"), "/version", "version"))

    def masks(self) -> bool:
        """Whether it says which tokens each token was drawn from."""
        self.resume()  # a run that was killed may have left it paused
        path, asked = "/inference/v1/generate", {"max_tokens": 1, "temperature": 1.0, "top_k": 2, "logprobs": 0}
        answer = self._call("POST", path, {"token_ids": [0], "sampling_params": asked})
        choices = self._field(answer, path, "choices")
        return bool(choices and choices[0].get("sampling_mask"))

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        try:
            with httpx.Client(timeout=self._timeout, headers=self._headers) as client:
                return self._read(client.request(method, self.url + path, json=body), path)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._gone(path, error) from error

    def _gone(self, path: str, error: Exception) -> UserError:
        return UserError(
            f"--vllm.url {self.url}: no answer to {path} ({type(error).__name__}: {first_line(error)}). Start the server, "
            f"{START}, or see why it ended; then go on with --resume and the folder of the run"
        )

    def _read(self, response: Any, path: str) -> Any:
        """The answer of a server that says yes, as JSON."""
        status = response.status_code
        if status == 200:
            try:
                return response.json() if "json" in response.headers.get("content-type", "") else response.text
            except ValueError as error:
                raise self._odd(path, f"its answer is no JSON ({first_line(error)})") from error
        said = " ".join(response.text.split())[:300]
        if status == 401:
            raise UserError(f"--vllm.url {self.url}: the key is refused; set {KEY} to that of the server")
        if status in (404, 405):
            raise UserError(
                f"--vllm.url {self.url}: the server has no route {path} ({said}); vLLM 0.32 or newer has it when it is started "
                f"as {START}; adapters need VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 and --enable-lora too"
            )
        raise UserError(
            f"--vllm.url {self.url}: {path} was refused ({status}: {said}); the log of the server says more. It is started "
            f"as {START}"
        )

    def _odd(self, path: str, what: str) -> UserError:
        return UserError(f"--vllm.url {self.url}: {path}: {what}; is that a vLLM server of 0.32 or newer?")

    def _field(self, answer: Any, path: str, name: str) -> Any:
        if not isinstance(answer, Mapping) or name not in answer:
            raise self._odd(path, f"there is no {name!r} in its answer")
        return answer[name]

    # Drawing -----------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        """See :class:`~policyopt.engine.vllm.backend.Backend`."""
        limits = httpx.Limits(max_connections=self.rows, max_keepalive_connections=self.rows)
        timeout = httpx.Timeout(LONGEST, connect=CONNECT, pool=None)  # who waits for a connection is no error
        async with httpx.AsyncClient(timeout=timeout, headers=self._headers, limits=limits) as self._client:
            yield

    async def draw(self, tokens: Sequence[int], params: Params, adapter: str | None) -> Drawn:
        """See :class:`~policyopt.engine.vllm.backend.Backend`. Lost connections and overload are tried again: a request
        carries its seed, so that a second try gives what the first would have."""
        path, body = "/inference/v1/generate", {"token_ids": list(tokens), "sampling_params": params}
        if adapter is not None:
            body["model"] = adapter
        for left in reversed(range(TRIES)):
            try:
                response = await self._client.post(self.url + path, json=body)
                if not left or response.status_code not in (429, 502, 503, 504):
                    break
            except httpx.TransportError as error:
                if not left:
                    raise self._gone(path, error) from error
            await asyncio.sleep(WAIT * 2 ** (TRIES - 1 - left))
        answer = self._read(response, path)
        if adapter is not None and answer.get("model") != adapter:
            raise self._odd(path, f"{answer.get('model')} has answered, and {adapter} was asked")
        try:
            return read(answer, tokens, params)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise self._odd(path, f"its answer cannot be read ({type(error).__name__}: {first_line(error)})") from error

    # Weights -----------------------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """See :class:`~policyopt.engine.vllm.backend.Backend`."""
        self._call("POST", "/pause?mode=abort")

    def init_transfer(self) -> None:
        """See :class:`~policyopt.engine.vllm.backend.Backend`."""
        self._call("POST", "/init_weight_transfer_engine", {"init_info": {}})

    def start_update(self) -> None:
        """See :class:`~policyopt.engine.vllm.backend.Backend`. An update that a run which was killed has left open is closed."""
        try:
            self._call("POST", "/start_weight_update")
        except UserError as refused:
            try:
                self._call("POST", "/finish_weight_update", {"weight_version": "none"})
            except UserError:
                raise refused from None
            self._call("POST", "/start_weight_update")

    def update(self, folder: Path) -> None:
        """See :class:`~policyopt.engine.vllm.backend.Backend`."""
        self._call("POST", "/update_weights", {"update_info": {"path": str(folder)}})

    def finish_update(self, version: str) -> None:
        """See :class:`~policyopt.engine.vllm.backend.Backend`."""
        self._call("POST", "/finish_weight_update", {"weight_version": version})

    def resume(self) -> None:
        """See :class:`~policyopt.engine.vllm.backend.Backend`."""
        self._call("POST", "/resume")

    def version(self) -> str:
        """See :class:`~policyopt.engine.vllm.backend.Backend`."""
        return str(self._field(self._call("GET", "/weight_info"), "/weight_info", "weight_version"))

    def checksums(self) -> dict[str, str]:
        """See :class:`~policyopt.engine.vllm.backend.Backend`."""
        path = "/weight_checker"
        return dict(self._field(self._call("POST", path, {"action": "checksum"}), path, "checksums"))

    def load_adapter(self, name: str, folder: Path) -> None:
        """See :class:`~policyopt.engine.vllm.backend.Backend`."""
        self._call("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})
        before, self._adapter = self._adapter, name
        if before is not None:
            self._call("POST", "/v1/unload_lora_adapter", {"lora_name": before})

    def sleep(self, level: int) -> None:
        """See :class:`~policyopt.engine.vllm.backend.Backend`."""
        self._call("POST", f"/sleep?level={level}")

    def wake(self, tag: str) -> None:
        """See :class:`~policyopt.engine.vllm.backend.Backend`."""
        self._call("POST", f"/wake_up?tags={tag}")

    def close(self) -> None:
        """The server goes on, without the adapters of this run."""
        if self._adapter is not None:
            before, self._adapter = self._adapter, None
            try:
                self._call("POST", "/v1/unload_lora_adapter", {"lora_name": before})
            except UserError:  # it may be gone, and the run is over
                pass


def read(answer: Mapping[str, Any], asked: Sequence[int], params: Params) -> Drawn:
    """An answer of ``/inference/v1/generate`` to some tokens. Raises ``ValueError``, ``KeyError`` and their like where it
    is none."""
    choice = answer["choices"][0]
    places = choice["logprobs"]["content"]
    tokens = [int(t) for t in choice["token_ids"]]
    if [p["token_id"] for p in places] != tokens:
        raise ValueError(f"{len(tokens)} tokens came with log-probabilities of {len(places)} others")
    k = params["logprobs"] - 1
    best = [sorted(p["top_logprobs"], key=lambda x: -x["logprob"])[:k] for p in places] if k > 0 else []
    spans = choice.get("weight_versions")
    seen = (answer.get("usage") or {}).get("prompt_tokens_details") or {}
    return Drawn(
        tokens,
        [float(p["logprob"]) for p in places],
        top=[([x["token_id"] for x in row], [x["logprob"] for x in row]) for row in best],
        masks=choice.get("sampling_mask"),
        prompt=[float(p[str(t)]["logprob"]) for t, p in zip(asked[1:], (answer.get("prompt_logprobs") or [])[1:])],
        versions=None if spans is None else spread([(s["version"], s["start"], s["end"]) for s in spans], len(tokens)),
        cached=min(len(asked), int(seen.get("cached_tokens") or 0)),
    )


def spread(spans: Sequence[tuple[str, int, int]], length: int) -> list[str]:
    """The version of each token, from spans ``[start, end)``. Raises ``ValueError`` where they do not cover the tokens."""
    versions = [version for version, start, end in spans for _ in range(start, end)]
    if len(versions) != length:
        raise ValueError(f"versions of {len(versions)} tokens came for {length}")
    return versions
