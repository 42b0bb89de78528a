"""What requests mean, on one model: sessions, models in training, checkpoints, samplers."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

from policyopt.engine.local.sampler import LocalSampler
from policyopt.errors import UserError
from policyopt.models.load import Policy
from policyopt.serve.desk import Answer, Desk, Job
from policyopt.serve.drawing import Wanted, draw_together, read_order
from policyopt.serve.held import Held
from policyopt.serve.refused import Refused, gone, unknown
from policyopt.serve.seats import Seats, Shape
from policyopt.serve.store import Store
from policyopt.serve.trained import Trained
from policyopt.serve.wire import Asked, Limits, write_forward

SNAPSHOTS = 8
"""Unnamed sampler weights that are kept of each model."""
METADATA = 1 << 16
"""Characters of what a client notes beside its things."""
BASE = ""
"""The weights of the model without adapters."""
RESULTS = "results.json"


class Service:
    """One model with everybody who trains on it and draws from it. Whatever touches the model runs in the thread of its
    :class:`~policyopt.serve.desk.Desk`."""

    def __init__(self, policy: Policy, names: Sequence[str], store: Store, most: int) -> None:
        self.policy, self.names, self.store = policy, tuple(names), store
        self.seats = Seats(policy)
        self.split: Any = policy.likelihood()
        self.limits = Limits(self.split.vocab, policy.context)
        self.sampler = LocalSampler(self.split, policy.eos, next(policy.model.parameters()).device)
        self.held = Held(store, self.seats, self.names[0])
        self.desk = Desk(self._draw, most)

    def start(self) -> None:
        """Take up what an earlier server left when it was ended, and begin to work."""
        self.desk.read(self.store.folder / RESULTS)
        self.desk.start()

    def stop(self) -> None:
        """End, and write down where every model stands and what nobody has fetched yet. Raises
        :class:`~policyopt.errors.UserError` where that cannot be written."""
        self.desk.stop()
        try:
            self.held.rest()
        except Refused as error:
            raise UserError(
                f"{self.store.folder}: {error}; clients have to load the last states that they saved"
            ) from error
        self.desk.write(self.store.folder / RESULTS)

    # Sessions --------------------------------------------------------------------------------------------------------

    def create_session(self, request: Any) -> dict[str, Any]:
        """A session of a client."""
        name = secrets.token_hex(8)
        _need_short(request.user_metadata)
        self.store.put("sessions", {"id": name, "metadata": request.user_metadata, "time": time.time(), "over": False})
        return {"type": "create_session", "session_id": name}

    def session(self, name: str, *, going: bool = True) -> dict[str, Any]:
        """A session by its id. Raises :class:`~policyopt.serve.refused.Refused` where there is none, or it is over."""
        found = self.store.things["sessions"].get(name)
        if found is None:
            raise unknown(f"session_id {name[:200]!r}: this server has no such session; make a new ServiceClient")
        if going and found["over"]:
            raise gone(f"session {name} is over: make a new ServiceClient")
        return found

    def finish(self, name: str) -> dict[str, Any]:
        """End a session: its models leave the memory, its checkpoints stay."""
        session = self.session(name, going=False)
        self.store.put("sessions", {**session, "over": True})
        for model in [m for m, r in [*self.store.things["models"].items()] if r["session"] == name]:
            job = Job(f"{model}:over", lambda model=model: self._unload(model))  # type: ignore[misc]
            self.desk.fetched(self.desk.submit(job))  # nobody asks for its result
        return {}

    # Models ----------------------------------------------------------------------------------------------------------

    def create_model(self, request: Any) -> Job:
        """Fresh adapters under a model's id, ``SESSION:train:NUMBER``."""
        self.session(request.session_id)
        self._need_name(request.base_model)
        if request.lora_config is None:
            raise Refused("lora_config is missing: this server trains adapters alone")
        _need_adam(getattr(request, "optimizer_config", None))
        lora = request.lora_config
        shape = Shape(lora.rank, attn=lora.train_attn, mlp=lora.train_mlp, unembed=lora.train_unembed)
        self.seats.modules(shape)
        _need_short(request.user_metadata)
        seed = secrets.randbits(31) if lora.seed is None else lora.seed
        if not 0 <= seed < 1 << 63:
            raise Refused(f"lora_config.seed {seed}: 0 to 2**63 - 1 is needed")
        name = f"{request.session_id}:train:{request.model_seq_id}"

        def work() -> Answer:
            fresh = self.seats.fresh(shape, seed)
            self._register(name, Trained(shape, fresh, fresh, seed=seed), request)
            return {"type": "create_model", "model_id": name}

        return self.desk.submit(Job(f"{name}:0", work))

    def model(self, name: str) -> dict[str, Any]:
        """The record of a model. Raises :class:`~policyopt.serve.refused.Refused` where there is none."""
        found = self.store.things["models"].get(name)
        if found is None:
            raise unknown(f"model_id {name[:200]!r}: this server has no such model")
        return found

    def info(self, name: str) -> dict[str, Any]:
        """What a model is."""
        record = self.model(name)
        data = {"arch": type(self.policy.model.get_base_model()).__name__, "model_name": record["base"], "tokenizer_id": self.names[0]}  # fmt: skip
        return {
            "type": "get_info", "model_data": data, "model_id": name, "is_lora": True, "lora_rank": record["shape"]["rank"],
            "model_name": record["base"],
        }  # fmt: skip

    def unload(self, name: str) -> Job:
        """Let go of a model; its checkpoints stay."""
        self.model(name)
        return self.desk.submit(Job(f"{name}:unload-{secrets.token_hex(4)}", lambda: self._unload(name)))

    def _unload(self, name: str) -> Answer:
        self.held.drop(name)
        self.store.put("models", {**self.model(name), "loaded": False})
        return {"type": "unload_model", "model_id": name}

    def _register(self, name: str, trained: Trained, request: Any, base: str | None = None) -> None:
        record = {
            "id": name, "session": request.session_id, "base": base or request.base_model, "shape": vars(trained.shape),
            "metadata": request.user_metadata, "time": time.time(), "loaded": True,
        }  # fmt: skip
        self.store.put("models", record)
        self.held.put(name, trained)

    # Training --------------------------------------------------------------------------------------------------------

    def forward(self, asked: Asked, size: int) -> Job:
        """Log-probabilities and the loss of data of so many bytes, with the gradient added up where that is asked for."""
        self.model(asked.model_id)

        def work() -> Answer:
            trained = self.held.get(asked.model_id)
            if asked.backward:
                self.held.moved(asked.model_id)
            logprobs, loss = trained.run(self.seats, self.split, asked)
            return write_forward(logprobs, {"loss:sum": loss})

        return self._once(asked.model_id, asked.seq_id, work, size)

    def optim_step(self, request: Any) -> Job:
        """A step of AdamW."""
        self.model(request.model_id)
        adam = _adam(request)

        def work() -> Answer:
            trained = self.held.get(request.model_id)
            self.held.moved(request.model_id)
            return {"metrics": trained.step(adam)}

        return self._once(request.model_id, request.seq_id, work)

    def save_weights(self, request: Any) -> Job:
        """A checkpoint with the optimiser's state, under a name."""
        self.model(request.model_id)
        _need_short(getattr(request, "user_metadata", None))

        def work() -> Answer:
            trained = self.held.get(request.model_id)
            name = request.path or f"step-{trained.steps:06d}"
            overwrite = bool(getattr(request, "overwrite", False))
            saved = self.held.write(
                request.model_id, "weights", name, trained, request, rest=trained.rest(), overwrite=overwrite
            )
            return {"type": "save_weights", "path": saved.path}

        return self._once(request.model_id, request.seq_id, work)

    def save_weights_for_sampler(self, request: Any) -> Job:
        """Weights to draw from: under a name, or without one as a sampler, of which the newest few of a model are kept."""
        session = self.model(request.model_id)["session"]
        number = request.sampling_session_seq_id
        if request.path is None and number is None:
            raise Refused("save_weights_for_sampler: path or sampling_session_seq_id is needed")
        _need_short(getattr(request, "user_metadata", None))

        def work() -> Answer:
            trained = self.held.get(request.model_id)
            named = request.path is not None
            name = request.path if named else f"unnamed-{number:09d}"
            saved = self.held.write(request.model_id, "sampler_weights", name, trained, request, overwrite=not named)
            if named:
                return {"type": "save_weights_for_sampler", "path": saved.path}
            self._sampler(f"{session}:sample:{number}", saved.path)
            unnamed = [s for s in self.store.all(request.model_id) if s.record["name"].startswith("unnamed-")]
            for old in unnamed[SNAPSHOTS:]:
                self.store.delete(old)
                self.store.drop("samplers", f"{session}:sample:{int(old.record['name'].rpartition('-')[2])}")
            return {"type": "save_weights_for_sampler", "sampling_session_id": f"{session}:sample:{number}"}

        return self._once(request.model_id, request.seq_id, work)

    def save_weights_external(self, request: Any) -> Job:
        """Adapters as PEFT reads them, to be taken away."""
        self.model(request.model_id)
        if request.age_encryption_recipients:
            raise Refused("age_encryption_recipients: files are not encrypted here; leave it out")

        def work() -> Answer:
            trained = self.held.get(request.model_id)
            saved = self.held.write(request.model_id, "external_weights", request.path, trained, request)
            return {"type": "save_weights_external", "path": saved.path, "size_bytes": saved.bytes}

        return self._once(request.model_id, request.seq_id, work)

    def load_weights(self, request: Any) -> Job:
        """Put saved weights in the place of a model's own, or begin a new model with them."""
        saved = self.store.find(request.path)
        session = getattr(request, "session_id", None)
        if session is None:
            name, seq = request.model_id or "", request.seq_id
            self.model(name)
        else:
            self.session(session)
            _need_adam(getattr(request, "optimizer_config", None))
            self._need_name(request.base_model or saved.record["base"])
            _need_short(request.user_metadata)
            name, seq = f"{session}:train:{request.model_seq_id}", None
        if request.optimizer and saved.record["kind"] != "weights":
            raise Refused(f"{request.path} holds weights for sampling alone, without the optimiser's state: load one saved by save_state")  # fmt: skip
        if session is None and self.model(name)["shape"] != saved.record["shape"]:
            raise Refused(f"{request.path} has adapters {saved.record['shape']}, the model {self.model(name)['shape']}")

        def work() -> Answer:
            trained = self.held.read(saved, optimiser=request.optimizer)
            if session is None:
                self.held.put(name, trained)
                self.store.put("models", {**self.model(name), "loaded": True})
            else:
                self._register(name, trained, request, request.base_model or saved.record["base"])
            return {"type": "load_weights", "path": request.path, "model_id": name}

        return self._once(name, seq, work) if session is None else self.desk.submit(Job(f"{name}:0", work))

    # Drawing ---------------------------------------------------------------------------------------------------------

    def create_sampling_session(self, request: Any) -> dict[str, Any]:
        """A sampler, ``SESSION:sample:NUMBER``, of saved weights or of the model itself."""
        self.session(request.session_id)
        name = f"{request.session_id}:sample:{request.sampling_session_seq_id}"
        self._sampler(name, self._weights(request))
        return {"type": "create_sampling_session", "sampling_session_id": name}

    def _weights(self, request: Any) -> str:
        if request.model_path is not None:
            return self.store.find(request.model_path).path
        if request.base_model is None:
            raise Refused("base_model or model_path is needed")
        self._need_name(request.base_model)
        return BASE

    def _sampler(self, name: str, weights: str) -> None:
        self.store.put("samplers", {"id": name, "weights": weights, "time": time.time()})

    def sampler_record(self, name: str) -> dict[str, Any]:
        """A sampler. Raises :class:`~policyopt.serve.refused.Refused` where there is none."""
        found = self.store.things["samplers"].get(name)
        if found is None:
            raise unknown(
                f"sampling_session_id {name[:200]!r}: this server has no such sampler (of weights without a name the newest "
                f"{SNAPSHOTS} of a model are kept); make a new SamplingClient"
            )
        return found

    def sample(self, request: Any) -> Job:
        """Responses to a prompt."""
        order = read_order(request, self.policy, self.limits)
        if request.sampling_session_id is None:
            name, weights = f"sample:{secrets.token_hex(8)}", self._weights(request)
        else:
            if request.seq_id is None:
                raise Refused("seq_id is missing: it goes with sampling_session_id")
            name = f"{request.sampling_session_id}:{request.seq_id}"
            weights = self.sampler_record(request.sampling_session_id)["weights"]
        if weights != BASE:
            self.store.find(weights)
        return self.desk.submit(Job(name, None, order, weights))

    def _draw(
        self, weights: str, first: Sequence[Wanted], more: Callable[[], Sequence[Wanted]], stopping: Callable[[], bool]
    ) -> None:
        shape, tensors = (None, {}) if weights == BASE else self.held.snapshot(weights)
        with self.seats.seated(shape, tensors):
            draw_together(self.sampler, self.split, first, more, stopping)

    # Names -----------------------------------------------------------------------------------------------------------

    def knows(self, request: str) -> bool:
        """Whether a request's id is of a model or a sampler that is known here."""
        owner = request.rpartition(":")[0]
        return owner in self.store.things["models"] or owner in self.store.things["samplers"]

    def _need_name(self, name: str) -> None:
        if name not in self.names:
            raise Refused(f"base_model {name[:200]!r}: this server has {' = '.join(self.names)}")

    def _once(self, model: str, seq: int | None, work: Callable[[], Answer], size: int = 0) -> Job:
        """A request of a model, which counts once however often it comes."""
        if seq is None or seq < 1:
            raise Refused("seq_id is missing: requests of a model are numbered from 1 on")
        return self.desk.submit(Job(f"{model}:{seq}", work, size=size))


def _need_short(metadata: Any) -> None:
    if metadata is not None and len(json.dumps(metadata)) > METADATA:
        raise Refused(f"user_metadata has more than {METADATA >> 10} Ki characters")


def _need_adam(config: Any) -> None:
    if config is not None and config.type != "adamw":
        raise Refused(f"optimizer_config.type {config.type!r}: this server has adamw alone")


def _adam(request: Any) -> Any:
    """The settings of a step. Raises :class:`~policyopt.serve.refused.Refused` naming the one that is out of range."""
    adam = getattr(request, "optim_params", None) or request.adam_params
    if not hasattr(adam, "beta2"):
        raise Refused(f"optim_params.type {getattr(adam, 'type', '')!r}: this server has AdamParams alone")
    for name, most in (("learning_rate", 1e3), ("eps", 1e3), ("weight_decay", 1e3), ("grad_clip_norm", 1e30)):
        if not 0 <= getattr(adam, name) <= most:
            raise Refused(f"adam_params.{name} {getattr(adam, name):g}: a number from 0 on is needed")
    for name in ("beta1", "beta2"):
        if not 0 <= getattr(adam, name) < 1:
            raise Refused(f"adam_params.{name} {getattr(adam, name):g}: at least 0 and less than 1 is needed")
    return adam
