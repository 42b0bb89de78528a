"""The bytes of the protocol: what a client sends to be trained on, checked, and what it gets back.

The messages are those of the ``tinker`` package (``tinker.proto.tinker_public_pb2``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from policyopt.serve.losses import LOSSES, Loss
from policyopt.serve.refused import Refused

MAX_DATA = 4096
"""Texts of one request."""
MAX_TARGETS = 1 << 22
"""Targets of one request."""
MASKED = -99999.0
"""The log-probability of a place in a table of the likeliest tokens that holds none."""


@dataclass(frozen=True)
class Limits:
    """What the model can read."""

    vocab: int
    context: int


@dataclass(frozen=True)
class Datum:
    """A text with what is asked of it."""

    tokens: np.ndarray
    """[L] ids."""
    targets: np.ndarray
    """[L] or [L, K] ids that are scored after each token."""
    columns: Mapping[str, np.ndarray]
    """What the loss reads, each in the shape of the targets."""


@dataclass(frozen=True)
class Asked:
    """A pass over data, as a client asked for it."""

    model_id: str
    seq_id: int
    data: Sequence[Datum]
    loss: Loss
    config: Mapping[str, float]
    backward: bool


def proto() -> Any:
    """The messages of the protocol."""
    from tinker.proto import tinker_public_pb2

    return tinker_public_pb2


# What comes -----------------------------------------------------------------------------------------------------------


def read_forward(body: bytes, limits: Limits) -> Asked:
    """A ``ForwardBackwardRequest``. Raises :class:`~policyopt.serve.refused.Refused` naming the field that is wrong."""
    message = proto().ForwardBackwardRequest()
    try:
        message.ParseFromString(body)
    except Exception as error:  # DecodeError, whose module differs between versions of protobuf
        raise Refused("the body is no ForwardBackwardRequest of tinker_public.proto") from error
    if message.loss_fn not in LOSSES:
        raise Refused(f"loss_fn {message.loss_fn!r} is not served here; one of {', '.join(LOSSES)}")
    loss = LOSSES[message.loss_fn]
    if not 1 <= len(message.data) <= MAX_DATA:
        raise Refused(f"data has {len(message.data)} texts: 1 to {MAX_DATA} are needed")
    data = [_datum(f"data[{i}]", each, loss, message.loss_fn, limits) for i, each in enumerate(message.data)]
    if (total := sum(d.targets.size for d in data)) > MAX_TARGETS:
        raise Refused(f"data has {total} targets: at most {MAX_TARGETS} are read at once; send fewer texts")
    return Asked(message.model_id, message.seq_id, data, loss, _config(message, loss), not message.forward_only)


def _config(message: Any, loss: Loss) -> dict[str, float]:
    found = dict(loss.settings)
    given = {k: v.text or v.number for k, v in message.loss_fn_config_v2.items()} or dict(message.loss_fn_config)
    for name, value in given.items():
        if name not in found:
            known = ", ".join(found) or "none"
            raise Refused(f"loss_fn_config[{name!r}]: {message.loss_fn} has no such setting; it has {known}")
        if not isinstance(value, float) or not np.isfinite(value) or value < 0:
            raise Refused(f"loss_fn_config[{name!r}]: a number from 0 on is needed, not {value!r}")
        found[name] = value
    if found.get("clip_low_threshold", 0) > 1 or found.get("clip_high_threshold", 1) < 1:
        raise Refused("loss_fn_config: the thresholds are ratios, the low one at most 1, the high one at least 1")
    return found


def _datum(place: str, message: Any, loss: Loss, name: str, limits: Limits) -> Datum:
    tokens = _text(f"{place}.model_input", message.model_input)
    check_ids(f"{place}.model_input", tokens, limits)
    given = {key: _tensor(f"{place}.loss_fn_inputs[{key!r}]", t) for key, t in message.loss_fn_inputs.items()}
    for key in given.keys() - {"target_tokens", *loss.reads}:
        raise Refused(f"{place}.loss_fn_inputs[{key!r}]: {name} reads target_tokens, {', '.join(loss.reads)} alone")
    if "target_tokens" not in given:
        raise Refused(f"{place}.loss_fn_inputs lacks target_tokens, which {name} reads")
    targets = given.pop("target_tokens")
    if targets.dtype.kind != "i" or targets.ndim not in (1, 2) or len(targets) != len(tokens) or not targets.size:
        raise Refused(
            f"{place}.loss_fn_inputs['target_tokens'] has shape {list(targets.shape)} of {targets.dtype}: ids are needed, one or "
            f"a row of them for each of the {len(tokens)} tokens of model_input"
        )
    check_ids(f"{place}.loss_fn_inputs['target_tokens']", targets, limits, context=False)
    if name == "cross_entropy":
        given.setdefault("weights", np.ones(targets.shape, dtype=np.float32))
    for key in loss.reads:
        if key not in given:
            raise Refused(f"{place}.loss_fn_inputs lacks {key}, which {name} reads")
        if given[key].shape != targets.shape:
            shapes = f"{list(given[key].shape)}, target_tokens {list(targets.shape)}"
            raise Refused(f"{place}.loss_fn_inputs[{key!r}] has shape {shapes}: they have to agree")
        if not np.isfinite(given[key]).all():
            raise Refused(f"{place}.loss_fn_inputs[{key!r}] holds numbers that are not finite")
    return Datum(tokens, targets, given)


def check_ids(place: str, ids: np.ndarray, limits: Limits, *, context: bool = True) -> None:
    """Raises :class:`~policyopt.serve.refused.Refused` for ids outside the vocabulary, and for a text that has none or is too
    long."""
    if not ids.size:
        raise Refused(f"{place} holds no tokens: at least one is needed")
    if context and len(ids) > limits.context:
        raise Refused(f"{place} has {len(ids)} tokens: the model reads at most {limits.context}")
    if ids.min() < 0 or ids.max() >= limits.vocab:
        wrong = ids[(ids < 0) | (ids >= limits.vocab)].flat[0]
        raise Refused(f"{place} holds the id {wrong}: those of the model are 0 to {limits.vocab - 1}")


def _text(place: str, chunks: Any) -> np.ndarray:
    found = []
    for i, chunk in enumerate(chunks):
        kind = chunk.WhichOneof(chunk.DESCRIPTOR.oneofs[0].name)
        if kind != "encoded_text":
            raise Refused(f"{place}.chunks[{i}] is {kind or 'empty'}: this server reads encoded_text alone")
        if len(chunk.encoded_text.tokens) % 4:
            raise Refused(f"{place}.chunks[{i}] is cut short: ids have 4 bytes each")
        found.append(np.frombuffer(chunk.encoded_text.tokens, dtype="<i4"))
    return np.concatenate(found).astype(np.int64) if found else np.zeros(0, dtype=np.int64)


def _tensor(place: str, message: Any) -> np.ndarray:
    """An array of float32 or int64, dense."""
    kinds = {proto().DTYPE_FLOAT32: "<f4", proto().DTYPE_INT64: "<i8"}
    if message.dtype not in kinds:
        raise Refused(f"{place}: float32 or int64 is needed")
    kind, shape = np.dtype(kinds[message.dtype]), tuple(message.shape)
    if any(n < 0 for n in shape) or np.prod(shape, dtype=object) > MAX_TARGETS:
        raise Refused(f"{place} has shape {list(shape)}: at most {MAX_TARGETS} numbers are read")
    try:
        if message.HasField("sparse_csr"):
            return _dense(message.sparse_csr, kind, shape)
        flat = np.frombuffer(message.dense, dtype=kind)
        return flat.reshape(shape) if shape else flat
    except (ValueError, IndexError) as error:
        raise Refused(f"{place}: its bytes do not make shape {list(shape)} of {kind.name}") from error


def _dense(csr: Any, kind: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    values = np.frombuffer(csr.values, dtype=kind)
    starts, columns = (np.frombuffer(x, dtype="<i8") for x in (csr.crow_indices, csr.col_indices))
    counts = np.diff(starts)
    if (
        len(shape) != 2
        or len(counts) != shape[0]
        or (counts < 0).any()
        or starts[0] != 0
        or counts.sum() != len(values)
    ):
        raise ValueError("no matrix in compressed rows")
    if len(columns) and (columns.min() < 0 or columns.max() >= shape[1]):
        raise ValueError("a column outside the matrix")
    out = np.zeros(shape, dtype=kind)
    out[np.repeat(np.arange(shape[0]), counts), columns] = values
    return out


# What goes ------------------------------------------------------------------------------------------------------------


def write_forward(logprobs: Sequence[np.ndarray], metrics: Mapping[str, float]) -> bytes:
    """A ``ForwardBackwardOutput``: what each target is likely, [L] or [L, K] for each text."""
    pb = proto()
    out = pb.ForwardBackwardOutput(loss_fn_output_type="ArrayRecord", metrics=dict(metrics))
    for trailing, some in groupby(logprobs, key=lambda x: x.shape[1:]):  # a record has one trailing shape
        arrays = [np.ascontiguousarray(x, dtype="<f4") for x in some]
        offsets = np.cumsum([0, *(x.nbytes for x in arrays)], dtype="<i8")
        field = pb.BatchedTensor(
            data=b"".join(x.tobytes() for x in arrays), offsets=offsets.tobytes(), dtype=pb.DTYPE_FLOAT32,
            trailing_shape=list(trailing),
        )  # fmt: skip
        record = out.loss_fn_outputs.add(type_tag="ArrayRecord", num_datums=len(arrays))
        record.fields["logprobs"].CopyFrom(field)
    return bytes(out.SerializeToString())


Table = Sequence[Sequence[tuple[int, float]] | None]
"""For each place the likeliest tokens with their log-probabilities; None where nothing was asked."""


@dataclass(frozen=True)
class Drawn:
    """A response."""

    tokens: Sequence[int]
    logprobs: Sequence[float]
    stopped: bool
    """It ended by itself, not by its budget."""
    top: Table = ()


def write_sample(
    drawn: Sequence[Drawn], *, top: int = 0, prompt: Sequence[float] = (), prompt_table: Table = (), prompt_top: int = 0
) -> bytes:
    """A ``SampleResponse``; ``prompt`` holds NaN where nothing was scored."""
    pb = proto()
    out = pb.SampleResponse(prompt_logprobs=np.asarray(prompt, dtype="<f4").tobytes())
    for each in drawn:
        sequence = out.sequences.add(
            stop_reason=pb.STOP_REASON_STOP if each.stopped else pb.STOP_REASON_LENGTH,
            tokens=np.asarray(each.tokens, dtype="<i4").tobytes(),
            logprobs=np.asarray(each.logprobs, dtype="<f4").tobytes(),
        )
        if top:
            sequence.topk_sampled_logprobs.CopyFrom(_table(each.top, top))
    if prompt_top:
        out.topk_prompt_logprobs.CopyFrom(_table(prompt_table, prompt_top))
    return bytes(out.SerializeToString())


def _table(table: Table, k: int) -> Any:
    ids, logp = np.zeros((len(table), k), dtype="<i4"), np.full((len(table), k), MASKED, dtype="<f4")
    for i, best in _places(table):
        for j, (token, value) in enumerate(best):
            ids[i, j], logp[i, j] = token, value
    return proto().TopkLogprobs(token_ids=ids.tobytes(), logprobs=logp.tobytes(), k=k, length=len(table))


def _places(table: Table) -> Iterator[tuple[int, Sequence[tuple[int, float]]]]:
    yield from ((i, best) for i, best in enumerate(table) if best is not None)
