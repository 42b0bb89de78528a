"""The responses of a step that are kept to be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from policyopt.models.text import Text
from policyopt.rows import Batch


def kept_samples(
    batch: Batch | None, weight: Tensor | None, lost: Sequence[Mapping[str, Any]], most: int, text: Text
) -> Iterator[dict[str, Any]]:
    """At most ``most`` records for the log: the first rows of a batch with their token weights [N, T], and of those that
    were ``lost`` to it, for want of a reward, half as many, or more where there are few rows."""
    records = [] if batch is None else batch.records or []
    gone = lost[: max(most // 2, most - len(records))]
    yield from map(dict, gone)
    if batch is None or weight is None:
        return
    for i, record in enumerate(records[: most - len(gone)]):
        n = int((batch.mask if batch.present is None else batch.present)[i].sum())
        told = {
            "reward": float(batch.reward[i]),
            "length": n,
            "truncated": bool(batch.truncated[i]),
            "pieces": text.pieces(batch.tokens[i, :n].tolist()),
            "weights": [float(f"{w:.4g}") for w in weight[i, :n].tolist()],
        }
        yield record | told | _looked(batch, i, n, text)


def _looked(batch: Batch, i: int, n: int, text: Text) -> dict[str, Any]:
    """What second looks found on a row: of each, the context and the log-probability of each token behind it."""
    contexts = batch.members("context")
    found = {
        name: {
            "context": text.decode([t for t in contexts[name][i].tolist() if t >= 0]),
            "logp": [float(f"{x:.4g}") for x in logp[i, :n].tolist()],
        }
        for name, logp in batch.members("behind").items()
    }
    return {"looks": found, "logp": [float(f"{x:.4g}") for x in batch.old_logp[i, :n].tolist()]} if found else {}
