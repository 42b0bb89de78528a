"""The engine of a Tinker server: the models are there, the losses are here."""

from __future__ import annotations

import logging
import math
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from policyopt.engine import Models
from policyopt.engine.plan import UpdateReport, accumulate
from policyopt.engine.protocol import Size, at_once
from policyopt.engine.settings import OptimizerName
from policyopt.engine.tinker import CAPABILITIES, saved
from policyopt.engine.tinker.linear import Linear, find, norm_of
from policyopt.engine.tinker.link import RESUME, Link
from policyopt.engine.tinker.rows import Row, datum, gathered, logprobs, rows_of
from policyopt.engine.tinker.sampler import RemoteSampler
from policyopt.errors import UserError
from policyopt.models.adapters import LoRA
from policyopt.models.likelihood import Leaves, Weigh
from policyopt.models.load import load_text
from policyopt.recipe import Recipe
from policyopt.rows import Batch
from policyopt.schema import member

START = "reference"
"""The role that the model of the start fills where no other is named."""

X = TypeVar("X")


class TinkerEngine:
    """An :class:`~policyopt.engine.protocol.Engine` whose models are on a server of the Tinker protocol.

    In this process there are the tokenizer, the batches and the losses. A pass of the server gives the log-probabilities of a mini-batch,
    the objective makes token weights of them, and a second pass takes these for the gradient; what the server is sent for that was
    found by asking it (:mod:`policyopt.engine.tinker.linear`). Raises :class:`~policyopt.errors.UserError` for a server that cannot be
    used, and a model that it does not serve.
    """

    capabilities = CAPABILITIES
    device, dtype, policy = torch.device("cpu"), torch.float32, None

    def __init__(
        self, link: Link, models: Models, recipe: Recipe, *, lr: float = 1e-5, betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8, weight_decay: float = 0.0, clip_norm: float = 1.0, critic_lr: float | None = None,
        micro_batch: int | None = None, optimizer: OptimizerName = "adamw", offload: bool = False,
    ) -> None:  # fmt: skip
        if optimizer != "adamw":
            raise UserError(f"--optim.name {optimizer}: a Tinker server has AdamW alone; leave it out")
        if offload:
            raise UserError("--offload: the models are on the Tinker server; leave it out")
        options = models.policy.options
        self.link, self.model = link, models.policy.name
        self.lora: LoRA = options.get("lora") or LoRA()
        _check_adapters(self.lora)
        self.text, self.context = load_text(self.model, options.get("prompting"))
        self.vocab = len(self.text.tokenizer)
        names = self._served([self.model, *(m.name for m in models.roles.values())])
        self.context = min(self.context, names[self.model] or self.context)
        self.version, self._base_lr, self._factor = 0, lr, 1.0
        self._adam = {
            "beta1": betas[0],
            "beta2": betas[1],
            "eps": eps,
            "weight_decay": weight_decay,
            "grad_clip_norm": clip_norm,
        }
        self.passes: Counter[tuple[str, bool]] = Counter()
        self.start: Mapping[str, Tensor] = {}
        self.linear = self._probed()
        self.client = self._trainer()
        self._snapshot: tuple[Any, int] = (None, -1)
        self.sampler = RemoteSampler(link, self.text, self.vocab, self._sampling)
        self._roles = {name: self._role(name, models) for name in sorted(recipe.roles)}
        self.samplers = {name: self._roles[name] for name in sorted(recipe.sampled_roles)}

    def ahead(self, draw: Callable[[], X]) -> Callable[[], X]:
        """Draw at once."""
        return at_once(draw)

    # The server ------------------------------------------------------------------------------------------------------

    def _served(self, names: Sequence[str]) -> dict[str, int | None]:
        """The context of every model that the server serves, by name. Raises :class:`~policyopt.errors.UserError` for one that it
        does not."""
        found = self.link.call("say what it serves", self.link.capabilities, again=True)
        served = {m.model_name: m.max_context_length for m in found.supported_models if m.model_name}
        for name in names:
            if name not in served:
                raise UserError(
                    f"--base-url {self.link.url}: the server does not serve the model {name}; it serves "
                    f"{', '.join(sorted(served)) or 'none'}: take one of these names"
                )
        return served

    def _trainer(self) -> Any:
        """A client that trains fresh adapters."""
        create, rank = self.link.service.create_lora_training_client, self.lora.rank
        return self.link.call("make adapters", lambda: create(self.model, rank=rank, seed=0, train_unembed=False))

    def _probed(self) -> Linear:
        """How this server makes gradients, found on adapters that are given back."""
        client = self._trainer()
        linear = find(self.link, client, self.vocab)
        self.link.unload(client)
        if not linear.measured:
            logging.getLogger(__name__).warning(
                f"{self.link.url} reports no norm of a gradient: taken for a sum over tokens, as the protocol says, without a look"
            )
        return linear

    def _sampling(self) -> tuple[Any, int]:
        """A client that draws from the policy as it is now, and its version. Older weights are never drawn from: SkyRL 0.3.0 would
        put them into the place of those that are trained."""
        if self._snapshot[1] != self.version:
            client = self.link.call("publish weights to draw from", self.client.save_weights_and_get_sampling_client)
            self._snapshot = client, self.version
        return self._snapshot

    def _role(self, name: str, models: Models) -> RemoteSampler:
        """What draws from the model in a role, and scores by it."""
        model = models.roles[name].name if name in models.roles else self.model if name == START else None
        if model is None:
            raise UserError(f"the recipe reads a model in the role {name!r}, and none is given: --role {name}=NAME")
        if model != self.model and load_text(model)[0].vocabulary != self.text.vocabulary:
            raise UserError(
                f"--role {name}={model}: a model in a role must read the same tokens as {self.model}, and it does not"
            )
        client = self.link.call(
            f"draw from {model}", lambda: self.link.service.create_sampling_client(base_model=model)
        )
        return RemoteSampler(self.link, self.text, self.vocab, lambda: (client, self.version))

    # Annotating ------------------------------------------------------------------------------------------------------

    def annotate(self, batch: Batch, recipe: Recipe) -> Batch:
        """See :class:`~policyopt.engine.protocol.Engine`."""
        for name, model in self._roles.items():
            if member("logp_of", name) in recipe.needs:
                self.passes[name, False] += int(batch.mask.sum())
                rows = list(rows_of(batch))
                found = model.score([(row.ids[:1], row.ids[1:]) for row in rows])
                batch = batch.replace(**{member("logp_of", name): gathered(batch, rows, found)})
        if "rollout_logp" in recipe.needs:
            batch = batch.replace(rollout_logp=batch.old_logp, old_logp=self._logp(batch, list(rows_of(batch))))
        return batch

    def prepare(self, batch: Batch, recipe: Recipe) -> Batch:
        """See :class:`~policyopt.engine.protocol.Engine`."""
        if "prox_logp" in recipe.needs:
            batch = batch.replace(prox_logp=self._logp(batch, list(rows_of(batch))))
        return batch

    def values(self, states: Sequence[Sequence[int]]) -> list[float]:
        """There is no critic. Raises :class:`~policyopt.errors.UserError`."""
        raise UserError("the rollout asks for values, and on a Tinker server there is no critic: take --engine local")

    def _logp(self, batch: Batch, rows: Sequence[Row]) -> Tensor:
        """[N, T] what the policy thinks of a batch now."""
        if not rows:
            return torch.zeros_like(batch.mask)
        if batch.temperature is not None and bool((batch.temperature != 1).any()):
            raise UserError(
                "responses were drawn at another temperature than 1, and a Tinker server scores at 1: take --engine local"
            )
        self.passes["policy", False] += int(batch.mask.sum())
        data = [datum(self.link.sdk.types, row.ids, weights=[0.0] * (len(row.ids) - 1)) for row in rows]
        answer = self.link.call("score a batch", lambda: self.client.forward(data, "cross_entropy"), again=True)
        return gathered(batch, rows, logprobs(answer))

    # Updating --------------------------------------------------------------------------------------------------------

    def update(self, recipe: Recipe, batch: Batch) -> UpdateReport:
        """One optimiser step on a mini-batch. Nothing changes where the loss or a token weight is not finite."""
        rows, pushed = list(rows_of(batch)), dict[str, Tensor]()

        def leaves(piece: Batch) -> Leaves:
            return {"logp": self._logp(piece, rows)}

        def learn(piece: Batch, weigh: Weigh) -> None:
            found = leaves(piece)
            pushed.update(logp=found["logp"], weight=-weigh(found)["logp"])

        whole = [torch.arange(len(batch.mask))]
        report = accumulate(recipe, batch, whole, version=self.version, whole=leaves, learn=learn)
        report.applied = math.isfinite(report.loss) and bool(torch.isfinite(pushed["weight"]).all())
        if report.applied and rows:
            report.grad_norm = self._step(rows, pushed["weight"], pushed["logp"])
            self.passes["policy", True] += int(batch.mask.sum())
            self.version += 1
        return report

    def _step(self, rows: Sequence[Row], weight: Tensor, logp: Tensor) -> float:
        """An optimiser step along token weights [N, T]. Returns the norm of the gradient, NaN where the server does not say."""
        types, client = self.link.sdk.types, self.client

        def spread(row: Row, x: Tensor) -> list[float]:
            return row.spread(x[row.number, row.places])

        data = self.linear.data(types, [(row.ids, spread(row, weight), spread(row, logp)) for row in rows])

        def step() -> Any:
            back = client.forward_backward(data, self.linear.loss)
            stepped = client.optim_step(types.AdamParams(learning_rate=self.lr, **self._adam))
            back.result()
            return stepped.result()

        norm = norm_of(self.link.call("take a step", step).metrics)
        if norm is not None and not math.isfinite(norm):
            raise UserError(
                f"{self.link.url}: the gradient on the server was not finite, and it has taken the step all the same; {RESUME}, with a lower --optim.lr"
            )
        return math.nan if norm is None else norm

    def follow(self, fraction: float, role: str = START) -> None:
        """No role moves here."""

    @property
    def lr(self) -> float:
        """The learning rate now."""
        return self._base_lr * self._factor

    def set_lr(self, factor: float) -> None:
        """Put the learning rate at ``factor`` times its base."""
        self._factor = factor

    def update_size(self) -> float:
        """Not known here: NaN."""
        return math.nan

    # State -----------------------------------------------------------------------------------------------------------

    def parameters(self) -> dict[str, Tensor]:
        """There are none in this process."""
        return {}

    def write(self, folder: Path) -> None:
        """Let the server save adapters and optimiser, and write down where."""
        name = f"{folder.name.removeprefix('tmp-')}-{uuid.uuid4().hex[:8]}"
        answer = self.link.call("save a checkpoint", lambda: self.client.save_state(name))
        saved.note(folder, self.link, self.model, self.lora.rank, answer.path)

    def read(self, folder: Path, version: int) -> None:
        """Let the server put back what it had saved. Raises ``KeyError`` where nothing says what."""
        said = saved.noted(folder)
        if (said.get("model"), said.get("rank")) != (self.model, self.lora.rank):
            raise KeyError(f"{said.get('model')} with adapters of rank {said.get('rank')}")
        load = self.link.service.create_training_client_from_state_with_optimizer
        try:
            client = self.link.call("go back to a checkpoint", lambda: load(said["path"]))
        except UserError as error:
            raise UserError(
                f"{error}. The checkpoint lies on the server {said.get('base_url')} as {said['path']}"
            ) from error
        self.link.unload(self.client)
        self.client, self.version, self._snapshot = client, version, (None, -1)

    def size(self) -> Size:
        """A checkpoint lies on the server; of adapters, about what seven matrices in each of 64 layers of a width of 4096
        take."""
        return Size(1 << 20, 4 * self.lora.rank * 64 * 7 * 2 * 4096)

    def save(self, folder: Path) -> None:
        """Write the adapters as a folder; see :func:`policyopt.engine.tinker.saved.save`."""
        name = f"{folder.name}-{uuid.uuid4().hex[:8]}"
        answer = self.link.call("save weights", lambda: self.client.save_weights_for_sampler(name))
        saved.save(folder, self.link, self.text.tokenizer, self.model, self.lora, answer.path)

    def close(self) -> None:
        """Give the adapters back, and leave the session."""
        self.link.unload(self.client)
        self.link.close()


def _check_adapters(lora: LoRA) -> None:
    """Raises :class:`~policyopt.errors.UserError` for what the server decides about its adapters."""
    usual = LoRA()
    for name in ("alpha", "targets", "quantized"):
        if getattr(lora, name) != getattr(usual, name):
            raise UserError(
                f"--adapters.{name} {getattr(lora, name)}: the protocol has no such choice, the server decides; leave it out"
            )
