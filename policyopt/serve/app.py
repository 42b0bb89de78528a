"""The routes of the protocol."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from policyopt.errors import explain
from policyopt.files import Malformed, parse_json
from policyopt.serve import listing
from policyopt.serve.desk import Job
from policyopt.serve.links import VALID, Links
from policyopt.serve.refused import Refused
from policyopt.serve.service import Service
from policyopt.serve.wire import read_forward

MAX_BODY = 64 << 20
"""Bytes of a request."""
PATIENCE = 20.0
"""Seconds for which a client is kept waiting for a result before it is told to ask again."""
PROTO = "application/x-protobuf"
LOCAL = ("127.0.0.1", "localhost", "[::1]")
"""Names under which this machine calls itself."""
CONFIG = {
    "pjwt_auth_enabled": False,
    "parallel_fwdbwd_chunks": False,
    "proto_write_fwdbwd": True,
    "fwd_via_fwdbwd": True,
}
"""Flags of the client: API keys, data in order, and as messages of the protocol."""

log = logging.getLogger(__name__)
T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]


class App:
    """The routes of a service. ``token`` is the key that clients have to send; None takes any."""

    def __init__(self, service: Service, token: str | None, *, local: bool = True) -> None:
        self.service, self._token, self._local = service, token, local
        self.links = Links(service.store)
        self.closing = asyncio.Event()
        self.asgi = Starlette(
            routes=[Route(f"/api/v1/{p}", self._guarded(h, p), methods=[m]) for m, p, h in self._routes()],
            exception_handlers={HTTPException: self._nowhere},
        )

    def _routes(self) -> list[tuple[str, str, Handler]]:
        s, json, job = self.service, self._json, self._job
        run = "training_runs/{run}"
        one = run + "/checkpoints/{checkpoint:path}"
        return [
            ("GET", "healthz", _said(lambda r: {"status": "ok"})),
            ("GET", "get_server_capabilities", _said(self._capabilities)),
            ("POST", "client/config", _said(lambda r: CONFIG)),
            ("POST", "client/dynamic_config", _said(lambda r: {})),
            ("POST", "telemetry", _said(lambda r: {"status": "accepted"})),
            ("POST", "create_session", json("CreateSessionRequest", s.create_session)),
            ("POST", "session_heartbeat", json("SessionHeartbeatRequest", self._heartbeat)),
            ("POST", "sessions/{name}/finish", _said(lambda r: s.finish(r.path_params["name"]))),
            ("GET", "sessions/{name}", _said(lambda r: listing.session(s, r.path_params["name"]))),
            ("GET", "sessions", _said(lambda r: {"sessions": _page(r, listing.newest(s.store.things["sessions"]))})),
            ("POST", "create_model", job("CreateModelRequest", s.create_model)),
            ("POST", "get_info", json("GetInfoRequest", lambda r: s.info(r.model_id))),
            ("POST", "unload_model", job("UnloadModelRequest", lambda r: s.unload(r.model_id))),
            ("POST", "forward", self._forward),
            ("POST", "forward_backward", self._forward),
            ("POST", "optim_step", job("OptimStepRequest", s.optim_step)),
            ("POST", "save_weights", job("SaveWeightsRequest", s.save_weights)),
            ("POST", "save_weights_for_sampler", job("SaveWeightsForSamplerRequest", s.save_weights_for_sampler)),
            ("POST", "save_weights_external", job("SaveWeightsExternalRequest", s.save_weights_external)),
            ("POST", "load_weights", job("LoadWeightsRequest", s.load_weights)),
            ("POST", "create_sampling_session", json("CreateSamplingSessionRequest", s.create_sampling_session)),
            ("GET", "samplers/{name}", _said(self._sampler)),
            ("POST", "asample", self._sample),
            ("POST", "retrieve_future", self._retrieve),
            ("POST", "weights_info", self._weights_info),
            ("GET", "training_runs", _said(self._runs)),
            ("GET", run, _said(lambda r: listing.training_run(s, r.path_params["run"]))),
            ("GET", run + "/checkpoints", _said(lambda r: _checkpoints(r, s, r.path_params["run"]))),
            ("GET", "checkpoints", _said(lambda r: _checkpoints(r, s, "*"))),
            ("GET", one + "/archive", self._archive),
            ("GET", one + "/external_weights_urls", _said(self._external)),
            ("GET", "download/{until}/{signature}/{what:path}", self._download),
            ("PUT", one + "/ttl", self._ttl),
            ("DELETE", one, self._delete),
        ]

    # Around every route -----------------------------------------------------------------------------------------------

    def _guarded(self, handler: Handler, path: str) -> Handler:
        async def answer(request: Request) -> Response:
            try:
                if not path.startswith(("healthz", "download/")):  # an address of the latter is a key itself
                    self._need_key(request)
                return await handler(request)
            except Refused as error:
                return _refusal(error)
            except ValidationError as error:
                return _refusal(Refused(explain(error)))
            except ClientDisconnect:
                return Response(status_code=499)
            except Exception as error:
                log.exception("%s failed", path)
                return _refusal(Refused(f"the server failed: {type(error).__name__}", 500))

        return answer

    def _need_key(self, request: Request) -> None:
        """Raises :class:`~policyopt.serve.refused.Refused` where the key is missing or wrong. On this machine any will do, but
        one has to be there: a page in a browser cannot send it."""
        given = request.headers.get("x-api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")
        if self._local and request.headers.get("host", "").rsplit(":", 1)[0] not in LOCAL:
            raise Refused(f"this server is called {' or '.join(LOCAL)}", 403)
        if not given:
            raise Refused("a key is missing: set TINKER_API_KEY", 401)
        if self._token is not None and not hmac.compare_digest(given.encode(), self._token.encode()):
            raise Refused("the key is wrong: TINKER_API_KEY has to be the POLICYOPT_SERVE_TOKEN of the server", 401)

    async def _nowhere(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 405:
            return _refusal(Refused(f"{request.method} {request.url.path}: the route takes another method", 405))
        return _refusal(Refused(f"{request.method} {request.url.path}: policyopt serve has no such route", 404))

    # Bodies -----------------------------------------------------------------------------------------------------------

    def _json(self, kind: str, act: Callable[[Any], dict[str, Any]]) -> Handler:
        async def answer(request: Request) -> Response:
            return JSONResponse(act(await _read(request, kind)))

        return answer

    def _job(self, kind: str, act: Callable[[Any], Job]) -> Handler:
        async def answer(request: Request) -> Response:
            asked = await _read(request, kind)
            return _promise(act(asked), getattr(asked, "model_id", None))

        return answer

    async def _forward(self, request: Request) -> Response:
        if request.headers.get("content-type", "").split(";")[0] != PROTO:
            raise Refused(f"data is read as {PROTO} alone: take the tinker package from 0.22.3 on", 415)
        body = await _body(request)
        asked = await run_in_threadpool(read_forward, body, self.service.limits)
        return _promise(self.service.forward(asked, len(body)), asked.model_id)

    async def _sample(self, request: Request) -> Response:
        asked = await _read(request, "SampleRequest")
        job = await run_in_threadpool(self.service.sample, asked)
        return JSONResponse(
            {"request_id": job.id, "sample_sequence_ids": [f"{job.id}:{i}" for i in range(asked.num_samples)]}
        )

    async def _retrieve(self, request: Request) -> Response:
        name = (await _read(request, "FutureRetrieveRequest", "tinker.types.future_retrieve_request")).request_id
        job = self.service.desk.find(name, self.service.knows)
        done: asyncio.Future[Any] = asyncio.shield(asyncio.wrap_future(job.answer))
        closing: asyncio.Future[Any] = asyncio.ensure_future(self.closing.wait())
        await asyncio.wait([done, closing], timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        closing.cancel()
        if not job.answer.done():
            return JSONResponse({"type": "try_again", "request_id": name, "queue_state": "active"})
        answer = job.answer.result()
        if isinstance(answer, bytes) and PROTO not in request.headers.get("accept", ""):
            raise Refused(
                f"this result goes as {PROTO} alone: accept it, as the tinker package from 0.22.3 on does", 406
            )
        self.service.desk.fetched(job)
        return JSONResponse(answer) if isinstance(answer, dict) else Response(answer, media_type=PROTO)

    # Listing ---------------------------------------------------------------------------------------------------------

    def _capabilities(self, request: Request) -> dict[str, Any]:
        context = self.service.limits.context
        about = {"max_context_length": context, "trainable": True, "sampleable": True}
        return {"supported_models": [{"model_name": name, **about} for name in self.service.names]}

    def _heartbeat(self, request: Any) -> dict[str, Any]:
        self.service.session(request.session_id)
        return {"type": "session_heartbeat"}

    def _sampler(self, request: Request) -> dict[str, Any]:
        record = self.service.sampler_record(request.path_params["name"])
        path = record["weights"] or None
        base = self.service.store.find(path).record["base"] if path else self.service.names[0]
        return {"sampler_id": record["id"], "base_model": base, "model_path": path}

    async def _weights_info(self, request: Request) -> Response:
        path = (await _object(request)).get("tinker_path")
        if not isinstance(path, str):
            raise Refused("tinker_path is missing")
        return JSONResponse(listing.weights_info(self.service, path))

    def _runs(self, request: Request) -> dict[str, Any]:
        names = listing.newest(self.service.store.things["models"])
        runs = [listing.training_run(self.service, name) for name in _page(request, names)]
        return {"training_runs": runs, "cursor": _cursor(request, len(names))}

    async def _archive(self, request: Request) -> Response:
        path, until = self.links.archive(listing.of_run(self.service, *_which(request)))
        return Response(status_code=302, headers={"Location": _absolute(request, path), "Expires": until})

    def _external(self, request: Request) -> dict[str, Any]:
        files = self.links.files(listing.of_run(self.service, *_which(request)))
        until = datetime.now(UTC) + timedelta(seconds=VALID)
        return {"urls": {n: _absolute(request, p) for n, p in files.items()}, "expires": until.isoformat()}

    async def _download(self, request: Request) -> Response:
        data = await run_in_threadpool(self.links.fetch, **request.path_params)
        return Response(data, media_type="application/octet-stream")

    async def _ttl(self, request: Request) -> Response:
        seconds = (await _object(request)).get("ttl_seconds")
        listing.set_ttl(self.service, listing.of_run(self.service, *_which(request)), seconds)
        return Response(status_code=204)

    async def _delete(self, request: Request) -> Response:
        self.service.store.delete(listing.of_run(self.service, *_which(request)))
        return Response(status_code=204)


def _said(act: Callable[[Request], dict[str, Any]]) -> Handler:
    async def answer(request: Request) -> Response:
        return JSONResponse(act(request))

    return answer


def _checkpoints(request: Request, service: Service, run: str) -> dict[str, Any]:
    found = service.store.all(run)
    if run != "*":
        service.model(run)
        return {"checkpoints": [listing.checkpoint(saved) for saved in found]}
    return {
        "checkpoints": [listing.checkpoint(saved) for saved in _page(request, found)],
        "cursor": _cursor(request, len(found)),
    }


def _which(request: Request) -> tuple[str, str]:
    return request.path_params["run"], request.path_params["checkpoint"]


def _absolute(request: Request, path: str) -> str:
    return str(request.base_url).rstrip("/") + path


def _range(request: Request) -> tuple[int, int]:
    try:
        limit, offset = (int(request.query_params.get(k, d)) for k, d in (("limit", 100), ("offset", 0)))
    except ValueError as error:
        raise Refused("limit and offset are whole numbers") from error
    return max(0, min(limit, 1000)), max(0, offset)


def _page(request: Request, items: list[T]) -> list[T]:
    limit, offset = _range(request)
    return items[offset : offset + limit]


def _cursor(request: Request, total: int) -> dict[str, int]:
    limit, offset = _range(request)
    return {"offset": offset, "limit": limit, "total_count": total}


def _promise(job: Job, model: str | None) -> Response:
    return JSONResponse({"request_id": job.id, "model_id": model})


def _refusal(error: Refused) -> Response:
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return JSONResponse({"detail": str(error), "error": str(error)}, error.status, headers)


async def _body(request: Request) -> bytes:
    """The bytes of a request. Raises :class:`~policyopt.serve.refused.Refused` where there are too many, or they are packed."""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refused(f"Content-Encoding {request.headers['content-encoding']}: send the body as it is", 415)
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY:
            raise Refused(f"the body has more than {MAX_BODY >> 20} MiB: send fewer texts at once", 413)
    return bytes(data)


async def _object(request: Request) -> dict[str, Any]:
    try:
        found = parse_json(await _body(request))
    except Malformed as error:
        raise Refused(f"the body is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise Refused("the body is no JSON object")
    return found


async def _read(request: Request, kind: str, module: str = "tinker.types") -> Any:
    """A request of the protocol, as the model of that name in the ``tinker`` package checks it."""
    import importlib

    return getattr(importlib.import_module(module), kind).model_validate(await _object(request))
