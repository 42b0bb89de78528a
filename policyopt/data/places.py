"""Where rows come from, as a line names it: files, patterns, saved folders, datasets of the hub, and mixtures of them.

============================  =======================================================================================
``data.jsonl``                a file: .jsonl, .json, .csv, .tsv (each also .gz), .parquet, .arrow
``data/*.jsonl``              all files of a pattern, sorted by name, as one source
``saved``, ``saved@test``     a folder that ``datasets`` saved (``save_to_disk``), and its split
``owner/name:config@split``   a dataset on the hub; without config its only one, without split ``train``
``hf://name``                 the same, for names without an owner too
``a.jsonl*2+b.jsonl``         a mixture: two prompts of the first for one of the second
``train.jsonl,test.jsonl``    rows to train on, and held-out rows
``<rows of a Python session>``  rows that were given in Python, as they are
============================  =======================================================================================

A name that is a file as it stands is that file, whatever signs are in it. Nothing here imports torch.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policyopt.carried import is_carried, need, of_session
from policyopt.errors import UserError

TEXTUAL = (".jsonl", ".json", ".csv", ".tsv")
"""Endings of files of lines; each may be compressed (``.jsonl.gz``)."""
ENDINGS = (*TEXTUAL, *(f"{ending}.gz" for ending in TEXTUAL), ".parquet", ".arrow")
"""Endings of files of rows."""
FORMS = ".jsonl, .json, .csv, .tsv (each also .gz), .parquet or .arrow"

_WEIGHT = re.compile(r"(.+)\*(\d+(?:\.\d+)?)", re.DOTALL)
_HUB = re.compile(r"(?P<name>(?:hf://(?:datasets/)?[\w.-]+(?:/[\w.-]+)?)|(?:[\w.-]+/[\w.-]+))"
                  r"(?::(?P<config>[\w.-]+))?(?:@(?P<split>[\w.-]+(?:\[[\d:%-]*\])?))?")  # fmt: skip
_SAVED = ("state.json", "dataset_dict.json")


@dataclass(frozen=True)
class Source:
    """One part of a mixture."""

    spec: str
    """As it was named, without its weight."""
    weight: float | None
    """Its share of the prompts, against the weights of the others; ``None`` where nobody gave one."""

    def places(self) -> list[str]:
        """The files of a pattern, sorted; otherwise the name itself."""
        return sorted(glob.glob(self.spec, recursive=True)) if is_pattern(self.spec) else [self.spec]


def is_file(place: str) -> bool:
    """Whether a name is that of a file of rows, there or not."""
    return place.endswith(ENDINGS)


def is_pattern(place: str) -> bool:
    """Whether a name stands for all files that look like it."""
    return is_file(place) and glob.has_magic(place) and not os.path.exists(place)


def saved_folder(place: str) -> tuple[Path, str] | None:
    """The folder that ``datasets`` saved, and the split that is asked for; ``None`` where there is none."""
    for folder, split in ((place, ""), (place.rpartition("@")[0], place.rpartition("@")[2])):
        if folder and any(os.path.isfile(os.path.join(folder, name)) for name in _SAVED):
            return Path(folder), split
    return None


def hub_id(place: str) -> tuple[str, str | None, str] | None:
    """Name, config and split of a dataset on the hub; ``None`` for what is no such name."""
    found = _HUB.fullmatch(place)
    if found is None:
        return None
    return re.sub("^hf://(datasets/)?", "", found["name"]), found["config"], found["split"] or "train"


def is_dataset(spec: str) -> bool:
    """Whether a task's name is meant as that of files or of a dataset on the hub."""
    return is_carried(spec) or spec.endswith(ENDINGS) or "/" in spec or os.path.isfile(spec) or any(
        is_file(source.spec) or saved_folder(source.spec) for half in halves(spec) for source in mixture(half)
    )  # fmt: skip


def halves(spec: str) -> list[str]:
    """The name of the rows to train on, and that of the held-out rows where it follows after a comma."""
    return [spec] if is_carried(spec) or os.path.exists(spec) else spec.split(",", 1)


def mixture(spec: str) -> list[Source]:
    """The sources that a name joins by ``+``, each with its weight.

    Raises :class:`~policyopt.errors.UserError` for a source that stands there twice and for a weight of 0.
    """
    if is_carried(spec):
        return [Source(spec, None)]
    sources: list[Source] = []
    for piece in [spec] if os.path.exists(spec) else map(str.strip, spec.split("+")):
        weighted = None if os.path.exists(piece) else _WEIGHT.fullmatch(piece)
        source = Source(weighted[1].strip(), float(weighted[2])) if weighted else Source(piece, None)
        if source.weight == 0:
            raise UserError(f"{spec}: the weight of {source.spec} is 0: leave it out")
        if source.spec in (s.spec for s in sources):
            raise UserError(f"{spec}: {source.spec} stands there twice: give it a weight, {source.spec}*2")
        sources.append(source)
    return sources


def need_places(spec: str) -> None:
    """Raises :class:`~policyopt.errors.UserError` for files that are not there, and for what is no name of a source."""
    for half in halves(spec):
        for source in mixture(half):
            _need(source.spec)


def _need(place: str) -> None:
    if is_carried(place):
        need(place, ARGUMENTS[place])
    elif is_pattern(place):
        if not glob.glob(place, recursive=True):
            raise UserError(f"no file is called like {place!r}")
    elif is_file(place):
        if not os.path.isfile(place):
            raise UserError(f"there is no file {place!r}")
    elif os.path.isfile(place):
        raise UserError(f"{place}: expected a file of rows, whose name ends in {FORMS}")
    elif saved_folder(place) is None and hub_id(place) is None:
        if os.path.isdir(place):
            raise UserError(f"{place} is a folder that datasets did not save: name the files in it, {place}/*.jsonl")
        raise UserError(f"{place!r} is no {FORMS} file and no id of a dataset on the hub (owner/name:config@split)")


# Names of sources ----------------------------------------------------------------------------------------------------


def distinct(places: Iterable[str]) -> dict[str, str]:
    """A short name for each place, no two the same: the name of a file, with as many of its folders as it takes."""
    every = list(dict.fromkeys(places))
    parts = {p: Path(p).parts if is_file(p) or saved_folder(p) else (p,) for p in every}
    names: dict[str, str] = {}
    for place in every:
        others = [parts[p] for p in every if p != place]
        mine = parts[place]
        depth = next((n for n in range(1, len(mine)) if all(o[-n:] != mine[-n:] for o in others)), len(mine))
        names[place] = "/".join(mine[-depth:])
    return names


def labels(sources: Iterable[Source]) -> dict[Source, str]:
    """What the log calls each source: the name of its file without the ending, where that tells all apart."""
    every = list(sources)
    names = distinct(source.spec for source in every)
    short = {s: re.sub(r"[*?\[\]]+", "", _without_ending(names[s.spec])).strip("/.-_") or "all" for s in every}
    return short if len(set(short.values())) == len(every) else {s: names[s.spec] for s in every}


def label(spec: str) -> str:
    """A name for the folder of a run on a task."""
    if is_carried(spec):
        return "rows"
    called = labels(mixture(halves(spec)[0])).values()
    return re.sub(r"[^\w.+-]+", "-", "+".join(Path(name).name for name in called))


def _without_ending(name: str) -> str:
    return next((name.removesuffix(e) for e in sorted(ENDINGS, key=len, reverse=True) if name.endswith(e)), name)


# From a file or from another directory -------------------------------------------------------------------------------


def written(spec: Any, argument: str = "task") -> Any:
    """The name of a task as one text: a list of sources, or a mapping of sources to weights, is joined by ``+``; rows that a
    Python session holds get a name that carries them.

    Rows are a list of mappings, a :class:`datasets.Dataset`, or a table of pandas, polars or pyarrow. Raises ``ValueError``
    for several datasets in one.
    """
    if isinstance(spec, Mapping):
        if any(map(_is_table, spec.values())):
            raise ValueError(f"{argument} is several datasets ({', '.join(map(str, spec))}): give one of them")
        return "+".join(f"{place}*{weight}" for place, weight in spec.items())
    if _is_table(spec) or (isinstance(spec, list | tuple) and any(isinstance(row, Mapping) for row in spec or [{}])):
        return of_session(_ROWS[argument], spec)
    if isinstance(spec, list | tuple):
        return "+".join(map(str, spec))
    return str(spec) if isinstance(spec, Path) else spec


_ROWS = {"task": "rows", "eval_task": "held-out rows"}
ARGUMENTS = {str(of_session(what)): argument for argument, what in _ROWS.items()}
"""Names of rows that a Python session holds, and the arguments that they are given by."""


def _is_table(x: Any) -> bool:
    """Whether it is rows by columns, of datasets or of what pyarrow reads."""
    return not isinstance(x, type) and (hasattr(x, "with_format") or hasattr(x, "__arrow_c_stream__"))


def absolute(spec: str) -> str:
    """The same sources from the root, so that a run goes on from another directory too."""

    def rooted(source: Source) -> str:
        there = is_pattern(source.spec) or (is_file(source.spec) and os.path.exists(source.spec))
        there = there or saved_folder(source.spec) is not None
        place = str(Path(source.spec).absolute()) if there else source.spec
        return place if source.weight is None else f"{place}*{source.weight:g}"

    if is_carried(spec):
        return spec
    return ",".join("+".join(map(rooted, mixture(half))) for half in halves(spec))
