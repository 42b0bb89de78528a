"""A stand-in for the module ``vllm``, as far as it is used."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from tests.engine.vllm.double import Double, Refused


def _params(**fields: Any) -> Any:
    return types.SimpleNamespace(**fields)


class Engine:
    """``LLM.llm_engine``: each request takes two steps."""

    def __init__(self, llm: FakeLLM) -> None:
        self.llm, self.pending, self.largest = llm, dict[str, Any](), 0

    def add_request(self, number: str, prompt: dict[str, Any], params: Any, lora_request: Any = None) -> None:
        self.pending[number] = [2, prompt["prompt_token_ids"], vars(params), lora_request]
        self.largest = max(self.largest, len(self.pending))

    def abort_request(self, numbers: list[str]) -> None:
        for number in numbers:
            self.pending.pop(number, None)

    def step(self) -> list[Any]:
        for one in self.pending.values():
            one[0] -= 1
        over = {number: one for number, one in self.pending.items() if not one[0]}
        self.abort_request(list(over))
        return [self._output(n, x) for n, x in zip(over, self._found(list(over.values())), strict=True)]

    def _found(self, over: list[Any]) -> list[Any]:
        double = self.llm.double
        for lora in (one[3] for one in over):
            if lora is not None and lora.lora_name not in double.samplers:
                double.load_adapter(lora.lora_name, lora.lora_path)
        found = double.answers([(one[1], one[2], one[3] and one[3].lora_name) for one in over])
        for refused in (x for x in found if isinstance(x, Refused)):
            raise refused
        return found

    def _output(self, number: str, found: Any) -> Any:
        [choice] = found["choices"]
        places = [
            {x["token_id"]: _params(logprob=x["logprob"]) for x in [*p["top_logprobs"], p]}
            for p in choice["logprobs"]["content"]
        ]
        mask = choice["sampling_mask"]
        said = [p and {int(t): _params(**x) for t, x in p.items()} for p in found["prompt_logprobs"] or ()]
        output = _params(
            token_ids=choice["token_ids"], logprobs=places, sampling_mask=mask and _params(token_ids=mask),
            weight_versions=[_params(**s) for s in choice["weight_versions"]],
        )  # fmt: skip
        return _params(
            request_id=number, finished=True, outputs=[output], prompt_logprobs=said or None, num_cached_tokens=1
        )


class FakeLLM:
    """``vllm.LLM``."""

    made: list[FakeLLM] = []

    def __init__(self, model: str, **options: Any) -> None:
        self.options = options
        self.double = Double(Path(model), masks=options.get("return_sampling_mask", False))
        self.llm_engine = Engine(self)
        self.calls: list[str] = []
        FakeLLM.made.append(self)

    def init_weight_transfer_engine(self, request: dict[str, Any]) -> None:
        self.calls.append("init")
        assert request == {"init_info": {}}
        self.double.init_transfer()

    def start_weight_update(self) -> None:
        self.calls.append("start")
        self.double.start()

    def update_weights(self, request: dict[str, Any]) -> None:
        self.calls.append("update")
        self.double.update(request["update_info"]["path"])

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self.calls.append("finish")
        self.double.finish(weight_version)

    def reset_prefix_cache(self) -> bool:
        self.calls.append("reset")
        return not self.llm_engine.pending

    def get_weight_version(self) -> str:
        return self.double.weight_version

    def collective_rpc(self, name: str) -> list[dict[str, str]]:
        assert name == "compute_weight_checksums"
        return [self.double.checksums()]

    def sleep(self, level: int = 1) -> None:
        self.calls.append(f"sleep {level}")
        self.double.sleep(level)

    def wake_up(self, tags: list[str]) -> None:
        self.calls.append(f"wake {tags[0]}")
        self.double.wake(tags[0])


@contextlib.contextmanager
def installed(release: str = "0.32.0") -> Iterator[list[FakeLLM]]:
    """The module ``vllm``, as far as it is used; yields the models that are made with it."""

    def module(name: str, **fields: Any) -> types.ModuleType:
        made = types.ModuleType(name)
        vars(made).update(fields)
        return made

    lora = module("vllm.lora.request", LoRARequest=lambda n, i, p: _params(lora_name=n, lora_int_id=i, lora_path=p))
    sampling = module("vllm.sampling_params", RequestOutputKind=_params(FINAL_ONLY=2))
    factory = _params(register_engine=lambda *_: None)
    modules = {
        "vllm": module("vllm", LLM=FakeLLM, SamplingParams=_params, __version__=release, sampling_params=sampling),
        "vllm.sampling_params": sampling,
        "vllm.config": module("vllm.config", WeightTransferConfig=_params),
        "vllm.lora": module("vllm.lora"),
        "vllm.lora.request": lora,
        "vllm.distributed": module("vllm.distributed"),
        "vllm.distributed.weight_transfer": module("weight_transfer", WeightTransferEngineFactory=factory),
    }
    FakeLLM.made = []
    with mock.patch.dict("sys.modules", modules), mock.patch("policyopt.engine.vllm._installed", return_value=release):
        yield FakeLLM.made
