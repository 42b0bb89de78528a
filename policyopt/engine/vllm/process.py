"""A vLLM that runs in this process."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from policyopt.engine.programs import hand_over
from policyopt.engine.vllm.backend import Drawn, Params
from policyopt.engine.vllm.plugin import TRANSFER, register
from policyopt.engine.vllm.server import spread
from policyopt.errors import UserError, first_line

INSTALL = "pip install 'policyopt[vllm]'"


class ProcessBackend:
    """A :class:`~policyopt.engine.vllm.backend.Backend` on ``vllm.LLM``.

    ``model`` is a folder or hub id, ``options`` are more arguments of ``LLM``. Raises
    :class:`~policyopt.errors.UserError` where vLLM is not installed or does not take the model.
    """

    def __init__(self, model: str, *, parallel: int = 1, **options: Any) -> None:
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        if parallel == 1:  # nothing is left behind where there is no other process
            os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        vllm = need_vllm()
        from vllm.config import WeightTransferConfig

        register()
        self.name = f"vLLM {vllm.__version__} in this process"
        self._vllm = vllm
        with self._told("it cannot be started"):
            self.llm: Any = vllm.LLM(
                model=model, tensor_parallel_size=parallel, logprobs_mode="processed_logprobs", max_logprobs=-1,
                generation_config="vllm", weight_transfer_config=WeightTransferConfig(backend=TRANSFER), **options,
            )  # fmt: skip
        self.engine: Any = self.llm.llm_engine
        self._numbers = itertools.count()
        self._adapter: Any = None
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._worker: asyncio.Task[None] | None = None

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever is wrong in there
            raise UserError(f"--sampler vllm: {self.name}: {what} ({first_line(error)})") from error

    # Drawing -----------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        """See :class:`~policyopt.engine.vllm.backend.Backend`."""
        try:
            yield
        finally:
            if self._worker is not None:
                self._worker.cancel()
            if self._waiting:
                self.engine.abort_request(list(self._waiting))
            self._worker, self._waiting = None, {}

    async def draw(self, tokens: Sequence[int], params: Params, adapter: str | None) -> Drawn:
        """See :class:`~policyopt.engine.vllm.backend.Backend`. What is asked for while others draw joins them."""
        if adapter is not None and (self._adapter is None or self._adapter.lora_name != adapter):
            raise UserError(f"--sampler vllm: {self.name} does not hold the adapters {adapter}")
        loop, number = asyncio.get_running_loop(), f"policyopt-{next(self._numbers)}"
        kind = self._vllm.sampling_params.RequestOutputKind.FINAL_ONLY
        with self._told("it refuses a request"):
            asked = self._vllm.SamplingParams(**params, output_kind=kind)
            self.engine.add_request(
                number, {"prompt_token_ids": list(tokens)}, asked, lora_request=self._adapter if adapter else None
            )
        self._waiting[number] = loop.create_future()
        if self._worker is None:
            self._worker = loop.create_task(self._work())
        output = await self._waiting[number]
        with self._told("its answer cannot be read"):
            return read(output, tokens, params)

    async def _work(self) -> None:
        """Step while anything is in flight; programs take their turns between two steps."""
        try:
            for _ in range(2):  # every program that is ready now asks first
                await asyncio.sleep(0)
            while self._waiting:
                with self._told("it failed"):
                    outputs = self.engine.step()
                for output in outputs:
                    if output.finished and not (done := self._waiting.pop(output.request_id)).done():
                        done.set_result(output)
                for _ in range(4 if outputs else 1):  # who has an answer may ask for more before the next step
                    await asyncio.sleep(0)
        except BaseException as error:
            hand_over(error, self._waiting.values())
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            self._worker = None

    # Weights -----------------------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Nothing is in flight between two sessions."""

    def init_transfer(self) -> None:
        """See :class:`~policyopt.engine.vllm.backend.Backend`."""
        with self._told("it takes no weights"):
            self.llm.init_weight_transfer_engine({"init_info": {}})

    def start_update(self) -> None:
        """See :class:`~policyopt.engine.vllm.backend.Backend`."""
        with self._told("it takes no weights"):
            self.llm.start_weight_update()

    def update(self, folder: Path) -> None:
        """See :class:`~policyopt.engine.vllm.backend.Backend`."""
        with self._told("it takes no weights"):
            self.llm.update_weights({"update_info": {"path": str(folder)}})

    def finish_update(self, version: str) -> None:
        """See :class:`~policyopt.engine.vllm.backend.Backend`."""
        with self._told("it takes no weights"):
            self.llm.finish_weight_update(weight_version=version)

    def resume(self) -> None:
        """Forget what was computed with other weights."""
        with self._told("its cache cannot be emptied"):
            if not self.llm.reset_prefix_cache():
                raise RuntimeError("reset_prefix_cache says no: something is still in flight")

    def version(self) -> str:
        """See :class:`~policyopt.engine.vllm.backend.Backend`."""
        with self._told("it does not say which weights it has"):
            return str(self.llm.get_weight_version())

    def checksums(self) -> dict[str, str]:
        """See :class:`~policyopt.engine.vllm.backend.Backend`."""
        with self._told("it does not say which weights it has"):
            workers = self.llm.collective_rpc("compute_weight_checksums")
            return {name: digest for worker in workers for name, digest in worker.items()}

    def load_adapter(self, name: str, folder: Path) -> None:
        """See :class:`~policyopt.engine.vllm.backend.Backend`."""
        from vllm.lora.request import LoRARequest

        self._adapter = LoRARequest(name, next(self._numbers) + 1, str(folder))

    def sleep(self, level: int) -> None:
        """See :class:`~policyopt.engine.vllm.backend.Backend`."""
        with self._told("it cannot sleep"):
            self.llm.sleep(level=level)

    def wake(self, tag: str) -> None:
        """See :class:`~policyopt.engine.vllm.backend.Backend`."""
        with self._told("it does not wake up"):
            self.llm.wake_up(tags=[tag])

    def close(self) -> None:
        """End what it runs."""
        core: Any = getattr(self.engine, "engine_core", None)
        if hasattr(core, "shutdown"):
            core.shutdown()


def need_vllm() -> Any:
    """The package. Raises :class:`~policyopt.errors.UserError` where it is not installed."""
    try:
        import vllm
    except ImportError as error:
        raise UserError(
            f"--sampler vllm: it needs vllm ({first_line(error)}): {INSTALL}, or name a server with --vllm.url"
        ) from error
    return vllm


def read(output: Any, asked: Sequence[int], params: Params) -> Drawn:
    """A ``RequestOutput`` to some tokens."""
    choice = output.outputs[0]
    tokens = list(choice.token_ids)
    k, places = params["logprobs"] - 1, choice.logprobs
    best = [sorted(p.items(), key=lambda x: -x[1].logprob)[:k] for p in places] if k > 0 else []
    spans = getattr(choice, "weight_versions", None)
    mask = getattr(choice, "sampling_mask", None)
    return Drawn(
        tokens,
        [float(p[t].logprob) for p, t in zip(places, tokens, strict=True)],
        top=[([t for t, _ in row], [float(x.logprob) for _, x in row]) for row in best],
        masks=None if mask is None else [list(m) for m in mask.token_ids],
        prompt=[float(p[t].logprob) for p, t in zip((output.prompt_logprobs or [])[1:], asked[1:])],
        versions=None if spans is None else spread([(s.version, s.start, s.end) for s in spans], len(tokens)),
        cached=min(len(asked), output.num_cached_tokens or 0),
    )
