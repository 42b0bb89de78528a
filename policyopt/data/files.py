"""Files, saved folders and datasets of the hub, read as rows. What cannot be read is named with its line.

Files may come from anybody: a line, a cell and a key have a greatest length, no key stands twice in an object, and
what is no JSON (``NaN``, ``Infinity``) is refused. Nothing here imports torch.
"""

from __future__ import annotations

import csv
import gzip
import json
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from policyopt.carried import is_carried, need
from policyopt.data.places import ARGUMENTS, hub_id, is_file, saved_folder
from policyopt.errors import UserError, first_line
from policyopt.hub import quickly

Row = tuple[str, int, Any]
"""What a row is called (``"data.jsonl, line"``), its number, and what it holds."""

LONGEST_LINE = 32 << 20
"""Bytes of a line."""
LONGEST_KEY = 200
"""Characters of the name of a column."""
LARGEST_ARRAY = 1 << 30
"""Characters of a file that is one JSON array: it has to be read whole."""

_BOMS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_TOLD_AFTER = 3.0
_BLOCK = 5000


def unit(place: str) -> str:
    """What a row of a place is counted in: lines, or rows from 1."""
    return "line" if place.removesuffix(".gz").endswith((".jsonl", ".csv", ".tsv")) else "row"


def read(place: str, name: str) -> list[Row]:
    """The rows of a file, a saved folder or a dataset on the hub; ``name`` is what errors call it.

    Raises :class:`~policyopt.errors.UserError` for what cannot be read, and where there is no row.
    """
    if is_carried(place):
        rows = _carried(place, name)
    elif saved_folder(place) is not None:
        rows = _saved(place, name)
    elif is_file(place):
        rows = _READERS[place.removesuffix(".gz").rpartition(".")[2]](Path(place), name)
    else:
        rows = _hub(place, name)
    found = list(_told(rows, name))
    if not found:
        raise UserError(f"{name}: the dataset is empty")
    return found


def _told(rows: Iterator[Row], name: str) -> Iterator[Row]:
    """The same rows; where reading them takes long, standard error says how many there are so far."""
    last = time.monotonic()
    for count, row in enumerate(rows, 1):
        if count % _BLOCK == 0 and time.monotonic() - last > _TOLD_AFTER:
            last = time.monotonic()
            print(f"reading {name}: {count:,} rows", file=sys.stderr)
        yield row


# Lines ---------------------------------------------------------------------------------------------------------------


def _open(path: Path) -> BinaryIO:
    return gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb")  # type: ignore[return-value]


def _lines(path: Path, name: str, longest: int | None = None) -> Iterator[tuple[int, str]]:
    """The lines of a text file with their numbers, with the sign that ends them."""
    number, longest = 0, longest or LONGEST_LINE
    try:
        with _open(path) as file:
            while line := file.readline(longest + 1):
                number += 1
                if number == 1 and line[:2] in _BOMS:
                    raise UserError(f"{name}, line 1: {_BOMS[line[:2]]} text: save the file as UTF-8")
                if len(line) > longest:
                    raise UserError(f"{name}, line {number}: longer than {longest >> 20} MB: is it one row?")
                if b"\0" in line:
                    raise UserError(f"{name}, line {number}: holds a null byte: is it a text file, saved as UTF-8?")
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{name}, line {number}: not UTF-8 ({error.reason} at byte {error.start}): save the file as UTF-8"
        ) from None
    except (EOFError, zlib.error, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{name}: cannot be read after line {number} ({reason})") from None


# JSON ----------------------------------------------------------------------------------------------------------------


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, count = Counter(key for key, _ in pairs).most_common(1)[0]
        raise UserError(f"the key {twice[:60]!r} stands there {'twice' if count == 2 else f'{count} times'}")
    for key in found:
        if len(key) > LONGEST_KEY:
            raise UserError(f"a key has {len(key):,} characters, at most {LONGEST_KEY} are read")
    return found


def _constant(name: str) -> None:
    raise UserError(f"{name} is no JSON: write a number, or null")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)


def parse(text: str, place: str) -> Any:
    """What JSON text holds; ``place`` is what errors call it.

    Raises :class:`~policyopt.errors.UserError` for what is no JSON, a key that stands twice or is too long, and for what is nested too deep.
    """
    try:
        return _DECODER.decode(text)
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise UserError(f"{place}: not JSON ({error.msg} at {line}column {error.colno})") from None
    except RecursionError:
        raise UserError(f"{place}: nested too deep") from None
    except ValueError:
        raise UserError(f"{place}: holds a number with thousands of digits") from None


def _jsonl(path: Path, name: str) -> Iterator[Row]:
    where = f"{name}, line"
    for number, line in _lines(path, name):
        if line.strip():
            if number == 1 and line.strip() == "[":
                raise UserError(f"{where} 1: the file is one JSON array, not an object on each line: name it .json")
            yield where, number, parse(line.rstrip(), f"{where} {number}")


def _json(path: Path, name: str) -> Iterator[Row]:
    """An array of objects, or an object that holds one under ``data``; lines of objects are read as such."""
    if (first := _first_object(path, name)) is not None and not isinstance(first.get("data"), list):
        yield from _jsonl(path, name)
        return
    pieces, size = [], 0
    for _, line in _lines(path, name, LARGEST_ARRAY):
        pieces.append(line)
        size += len(line)
        if size > LARGEST_ARRAY:
            raise UserError(
                f"{name}: more than {LARGEST_ARRAY >> 20} MB in one array: write one object on each line (.jsonl)"
            )
    text = "".join(pieces)
    whole = parse(text if text.strip() else "[]", name)
    rows = whole.get("data") if isinstance(whole, dict) else whole
    if not isinstance(rows, list):
        raise UserError(f"{name}: expected a list of objects, or an object with such a list under 'data'")
    for number, row in enumerate(rows, 1):
        yield f"{name}, row", number, row


def _first_object(path: Path, name: str) -> dict[str, Any] | None:
    """The object that the first line of a file is by itself."""
    lines = _lines(path, name)
    try:
        text = next((line for _, line in lines if line.strip()), "")
        found = json.loads(text) if text.lstrip().startswith("{") else None
    except (ValueError, RecursionError):  # only a part of an object; what is wrong with it is said later
        return None
    finally:
        lines.close()  # type: ignore[attr-defined]
    return found if isinstance(found, dict) else None


# Tables of text ------------------------------------------------------------------------------------------------------


def _csv(path: Path, name: str, delimiters: str = ",;\t") -> Iterator[Row]:
    """A table with a header. The delimiter is the one that stands most often in the header."""
    begun = 0

    def texts() -> Iterator[str]:
        nonlocal begun
        for number, line in _lines(path, name):
            begun = number
            yield line

    header: list[str] = []
    start = 1
    try:
        for cells in _reader(texts(), delimiters):
            line, start = start, begun + 1
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = _header(cells, f"{name}, line {line}")
            elif len(cells) != len(header):
                raise UserError(
                    f"{name}, line {line}: {len(cells)} cells, and the header has {len(header)}: a text with a delimiter "
                    "or a line break in it stands in quotes"
                )
            else:
                # The first column of a table may be a number of its rows, without a name.
                yield f"{name}, line", line, {key: cell or None for key, cell in zip(header, cells, strict=True) if key}
    except csv.Error as error:
        advice = ": a quote is opened there and never closed" if "end of data" in str(error) else ""
        raise UserError(f"{name}, line {start}: not a row of a table ({error}){advice}") from None


def _reader(lines: Iterator[str], delimiters: str) -> Iterator[list[str]]:
    first = next(lines, "")

    def every() -> Iterator[str]:
        yield first
        yield from lines

    # max takes the first of those that stand there equally often
    return csv.reader(every() if first else iter(()), delimiter=max(delimiters, key=first.count), strict=True)


def _header(cells: list[str], place: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    if twice := {x[:60] for x in names if x and names.count(x) > 1}:
        raise UserError(f"{place}: the column {min(twice)!r} stands there twice")
    if any(len(x) > LONGEST_KEY for x in names):
        raise UserError(f"{place}: a column's name has more than {LONGEST_KEY} characters: is there a header?")
    return names


# Tables of columns ---------------------------------------------------------------------------------------------------


def _parquet(path: Path, name: str) -> Iterator[Row]:
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield from _batches(file.iter_batches(), name)
    except Exception as error:  # a damaged file raises anything
        raise UserError(f"{name}: not a readable Parquet file ({first_line(error, None)})") from None


def _arrow(path: Path, name: str) -> Iterator[Row]:
    import pyarrow

    try:
        with pyarrow.OSFile(str(path)) as file:
            head = file.read(6)
            file.seek(0)
            if head == b"ARROW1":
                opened = pyarrow.ipc.open_file(file)
                batches = (opened.get_batch(i) for i in range(opened.num_record_batches))
            else:  # as datasets writes it
                batches = pyarrow.ipc.open_stream(file)
            yield from _batches(batches, name)
    except Exception as error:  # a damaged file raises anything
        raise UserError(f"{name}: not a readable Arrow file ({first_line(error, None)})") from None


def _batches(batches: Any, name: str) -> Iterator[Row]:
    number = 0
    for batch in batches:
        batch.validate(full=True)  # a damaged file may point anywhere
        for row in batch.to_pylist():
            number += 1
            yield f"{name}, row", number, row


def _saved(place: str, name: str) -> Iterator[Row]:
    import datasets

    folder, split = saved_folder(place) or (Path(place), "")
    try:
        found = datasets.load_from_disk(str(folder))
    except Exception as error:  # the library raises anything, and each means that there are no rows
        raise UserError(f"{name}: datasets cannot load the folder ({first_line(error, None)})") from None
    if isinstance(found, datasets.DatasetDict):
        split = split or ("train" if "train" in found or len(found) != 1 else next(iter(found)))
        if split not in found:
            raise UserError(f"{name}: no split {split!r}: choose one, {' or '.join(f'{folder}@{s}' for s in found)}")
        found = found[split]
    elif split:
        raise UserError(f"{name}: the folder has no splits: leave @{split} out")
    yield from _plain(found, name)


def _hub(place: str, name: str) -> Iterator[Row]:
    import datasets

    known = hub_id(place)
    assert known is not None, place
    dataset, config, split = known
    try:
        with quickly():
            found = datasets.load_dataset(dataset, config, split=split)
    except Exception as error:  # anything from ConnectionError to ValueError, and each means that there are no rows
        said = first_line(error, None)
        advice = ""
        if "Config name is missing" in said:
            advice = f": name one, {dataset}:CONFIG"
        elif "Unknown split" in said:
            advice = f": name one, {place.partition('@')[0]}@SPLIT"
        raise UserError(f"the dataset {place!r} could not be loaded from the hub: {said}{advice}") from None
    yield from _plain(found, name)


def _plain(rows: Any, name: str) -> Iterator[Row]:
    """The rows of a dataset. Pictures and sounds stay the bytes that they are: nothing decodes them."""
    yield from _batches(rows.with_format("arrow").iter(batch_size=1000), name)


def _carried(place: str, name: str) -> Iterator[Row]:
    """The rows that a Python session holds."""
    rows = need(place, ARGUMENTS[place])
    if isinstance(rows, list | tuple):
        for number, row in enumerate(rows, 1):
            yield (
                f"{name}, row",
                number,
                _object(_native(row, f"{name}, row {number}")) if isinstance(row, Mapping) else row,
            )
    elif hasattr(rows, "with_format"):
        yield from _plain(rows, name)
    else:
        yield from _batches(_table(rows, name).to_batches(), name)


def _native(row: Mapping[Any, Any], place: str) -> list[tuple[str, Any]]:
    """The columns of a row, numbers of numpy as Python's."""
    if not all(isinstance(key, str) for key in row):
        raise UserError(
            f"{place}: expected names of columns as text, not {next(k for k in row if not isinstance(k, str))!r}"
        )
    return [(key, x.item() if hasattr(x, "item") and getattr(x, "shape", None) == () else x) for key, x in row.items()]


def _table(rows: Any, name: str) -> Any:
    import pyarrow

    try:
        return pyarrow.Table.from_pandas(rows, preserve_index=False) if hasattr(rows, "iloc") else pyarrow.table(rows)
    except (pyarrow.ArrowException, TypeError, ValueError) as error:
        raise UserError(f"{name}: a column holds values of several kinds ({first_line(error, None)})") from None


_READERS: dict[str, Callable[[Path, str], Iterator[Row]]] = {
    "jsonl": _jsonl,
    "json": _json,
    "csv": _csv,
    "tsv": lambda path, name: _csv(path, name, "\t"),
    "parquet": _parquet,
    "arrow": _arrow,
}
