"""What a server holds, as clients list it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from policyopt.serve.refused import Refused
from policyopt.serve.service import Service
from policyopt.serve.store import Saved

TYPES = {"weights": "training", "sampler_weights": "sampler", "external_weights": "external"}


def checkpoint(saved: Saved) -> dict[str, Any]:
    """A ``Checkpoint``."""
    record = saved.record
    return {
        "checkpoint_id": f"{record['kind']}/{record['name']}", "checkpoint_type": TYPES[record["kind"]], "time": _time(record["time"]),
        "tinker_path": saved.path, "size_bytes": saved.bytes, "public": False, "user_metadata": record["metadata"],
        "expires_at": None if record["expires"] is None else _time(record["expires"]),
    }  # fmt: skip


def training_run(service: Service, name: str) -> dict[str, Any]:
    """A ``TrainingRun``."""
    record = service.model(name)
    newest: dict[str, Saved] = {}
    for saved in service.store.all(name):
        newest.setdefault(saved.record["kind"], saved)
    last = max([record["time"], *(s.record["time"] for s in newest.values())])
    return {
        "training_run_id": name, "base_model": record["base"], "model_owner": "local", "is_lora": True, "corrupted": False,
        "lora_rank": record["shape"]["rank"], "last_request_time": _time(last),
        "last_checkpoint": checkpoint(newest["weights"]) if "weights" in newest else None,
        "last_sampler_checkpoint": checkpoint(newest["sampler_weights"]) if "sampler_weights" in newest else None,
        "user_metadata": record["metadata"],
    }  # fmt: skip


def weights_info(service: Service, path: str) -> dict[str, Any]:
    """A ``WeightsInfoResponse``."""
    record = service.store.find(path).record
    shape = record["shape"]
    return {
        "base_model": record["base"], "is_lora": True, "lora_rank": shape["rank"], "train_attn": shape["attn"],
        "train_mlp": shape["mlp"], "train_unembed": shape["unembed"],
    }  # fmt: skip


def session(service: Service, name: str) -> dict[str, Any]:
    """A ``GetSessionResponse``."""
    found = service.session(name, going=False)
    things = service.store.things
    return {
        "training_run_ids": [m for m, r in [*things["models"].items()] if r["session"] == name],
        "sampler_ids": [s for s in [*things["samplers"]] if s.startswith(f"{name}:")], "user_metadata": found["metadata"] or None,
    }  # fmt: skip


def newest(things: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names of records, the newest first."""
    return sorted(things, key=lambda name: -things[name]["time"])


def of_run(service: Service, model: str, checkpoint: str) -> Saved:
    """A checkpoint of a run by its id, ``KIND/NAME``."""
    return service.store.find(f"tinker://{model}/{checkpoint}")


def set_ttl(service: Service, saved: Saved, seconds: Any) -> None:
    """Let a checkpoint expire so many seconds from now, or never."""
    if seconds is not None and (not isinstance(seconds, int) or not 0 < seconds <= 10 * 366 * 86400):
        raise Refused("ttl_seconds: a number of seconds up to 10 years is needed, or null")
    service.store.amend(saved, expires=None if seconds is None else time.time() + seconds)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
