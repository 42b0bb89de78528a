"""How new weights come to a vLLM, and the proof that they came."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from policyopt.engine.vllm.backend import Backend
from policyopt.errors import UserError
from policyopt.models.adapters import save_adapters
from policyopt.models.likelihood import Stepwise
from policyopt.models.proof import probe_ids
from policyopt.models.quiet import quiet

PREFIX = "policyopt-vllm-"
NOTHING = hashlib.sha256(b"").hexdigest()
"""The checksum of a weight that vLLM keeps elsewhere, as packed ones on a CPU: it says nothing."""
PROBE = 32
"""Tokens of the text that both sides score."""

Score = Callable[[Sequence[int], Sequence[int]], Sequence[float]]
"""What vLLM thinks of a text: the log-probability of each of the second tokens behind the first."""


class Weights:
    """Hands the weights of a model to a vLLM whenever they have changed, in four phases, and proves that it has them.

    Pause; start, update, finish under a name; resume. The name is one that nobody else gives, and every token comes back
    with it. Every ``check_every``-th time (0: never) two proofs follow. Checksums: where ours have changed, vLLM's have;
    vectors that have the same name on both sides (norms) are equal to the bit. A text: vLLM's log-probabilities are the
    trainer's, up to the noise of their precision; this sees what checksums do not, a kernel that reads an older copy.

    With adapters, these alone are handed over, under a new name each time, and the text alone is the proof.
    ``share`` is the folder through which they go; a server has to see it under the same path.
    """

    def __init__(
        self, backend: Backend, model: Any, stepwise: Stepwise, *, share: Path | None = None, check_every: int = 1,
        sleeps: bool = False,
    ) -> None:  # fmt: skip
        self.backend, self.model, self.stepwise = backend, model, stepwise
        self.adapted = hasattr(model, "merge_and_unload")
        self.check_every, self.sleeps = check_every, sleeps
        self.score: Score | None = None
        """How a text is scored; who makes the sampler sets it."""
        self._run, self._brought, self._asleep, self._ready = secrets.token_hex(4), 0, False, False
        self._name: str | None = None
        self._version: int | None = None
        self._ours = self._theirs = ""
        self._folder = scratch(share)

    @property
    def adapter(self) -> str | None:
        """The name of the adapters to draw with."""
        return self._name if self.adapted else None

    @property
    def label(self) -> str | None:
        """The name of the weights that a vLLM should have."""
        return None if self.adapted else self._name

    def bring(self, version: int) -> None:
        """Hand the weights over where vLLM has not these; see :class:`Weights`. Raises
        :class:`~policyopt.errors.UserError` where it does not take them, and where it does not have them afterwards."""
        if self._asleep:
            self.backend.wake("weights")
        if self.label is not None and self.backend.version() != self.label:  # it was started anew
            self._version, self._ready = None, False
        if version != self._version:
            self._version, self._name = None, f"policyopt-{self._run}-{self._brought}-{version}"
            self._hand_over(self._name)
            self._wake_whole()
            if self.check_every and self._brought % self.check_every == 0:
                self._prove()
            self._version, self._brought = version, self._brought + 1
        self._wake_whole()

    def _wake_whole(self) -> None:
        if self._asleep:
            self.backend.wake("kv_cache")
            self._asleep = False

    def leave(self) -> None:
        """Let vLLM sleep where it should, so that the trainer has its memory. Whole weights are dropped and handed over
        anew; the model below adapters waits on the host."""
        if self.sleeps:
            self.backend.sleep(1 if self.adapted else 2)
            self._asleep = True
            self._version = self._version if self.adapted else None

    @quiet()
    def _hand_over(self, name: str) -> None:
        folder = self._folder / name
        try:
            if self.adapted:
                save_adapters(self.model, folder)
                self.backend.load_adapter(name, folder)
                return
            self.model.save_pretrained(folder)
            if not self._ready:
                self.backend.init_transfer()
                self._ready = True
            self.backend.pause()
            self.backend.start_update()
            self.backend.update(folder)
            self.backend.finish_update(name)
            self.backend.resume()
        finally:
            for old in self._folder.iterdir():
                if old != folder or not self.adapted:  # adapters are read when somebody first draws with them
                    shutil.rmtree(old, ignore_errors=True)
        if (found := self.backend.version()) != name:
            raise self._stale(f"it says that it has the weights {found!r}")

    # The proof -------------------------------------------------------------------------------------------------------

    def _prove(self) -> None:
        if not self.adapted:
            named = dict(self.model.named_parameters())
            self._compare({name: digest(p) for name, p in named.items()}, self.backend.checksums(), named)
        if self.score is not None:
            self._read_text()

    def _compare(self, ours: Mapping[str, str], said: Mapping[str, str], named: Mapping[str, Tensor]) -> None:
        theirs = {name: x for name, x in said.items() if x != NOTHING}
        plain = {name.rpartition(":")[2]: x for name, x in theirs.items()}
        for name, p in named.items():
            if p.dim() == 1 and plain.get(name, ours[name]) != ours[name]:
                raise self._stale(f"its {name} is not that of the trainer (or has another type than {p.dtype})")
        mine, its = (digest_of(x) for x in (ours, theirs))
        if theirs and self._ours and (mine != self._ours) and its == self._theirs:
            raise self._stale("the weights of the trainer have changed, and its checksums have not")
        self._ours, self._theirs = mine, its

    @torch.no_grad()
    def _read_text(self) -> None:
        assert self.score is not None
        device = next(self.model.parameters()).device
        ids = probe_ids(PROBE, self.stepwise.vocab, device)
        hidden = self.stepwise.hidden(input_ids=ids, use_cache=False).last_hidden_state[0, :-1]
        ours = self.stepwise.logits(hidden).float().log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0].cpu()
        first, *rest = ids[0].tolist()
        theirs = torch.tensor(self.score([first], rest))
        tolerance = 1e-3 if self.model.dtype == torch.float32 else 0.5
        gap = float((ours - theirs).abs().max())
        if not gap <= tolerance:  # NaN fails too
            raise self._stale(
                f"it gives a text other log-probabilities than the trainer (by {gap:.3g}, at most {tolerance:g} is noise of "
                f"{self.model.dtype}); where this is the first time, see that it has the same model and the same dtype"
            )

    def _stale(self, what: str) -> UserError:
        return UserError(f"{self.backend.name} was given the weights {self._name!r} and does not have them: {what}")

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)


def digest(x: Tensor) -> str:
    """SHA-256 of the bytes of a tensor."""
    return hashlib.sha256(x.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data).hexdigest()


def digest_of(digests: Mapping[str, str]) -> str:
    """One of many."""
    return hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest()


def scratch(share: Path | None) -> Path:
    """A new folder to hand weights over in: in ``share``, else in memory where this machine has such a place. What
    processes that are no more have left there goes.

    Raises :class:`~policyopt.errors.UserError` where it cannot be written.
    """
    memory = Path("/dev/shm")
    place = share or (memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir()))
    try:
        place.mkdir(parents=True, exist_ok=True)
        for old in place.glob(f"{PREFIX}*"):
            pid = old.name.removeprefix(PREFIX).partition("-")[0]
            if share is None and pid.isdecimal() and not Path(f"/proc/{pid}").exists() and Path("/proc").exists():
                shutil.rmtree(old, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=place)).absolute()
    except OSError as error:
        raise UserError(f"--vllm.share {place}: no folder can be made there ({error.strerror})") from error
