"""Tasks from the user's own questions: a JSON Lines or Parquet file, or a dataset on the hub.

Every row has a ``prompt`` (text, or a list of chat messages) and an ``answer`` (text or a number), and may have a
``solution`` (text: a worked solution, for methods that take hints from it). In the place of the answer, or beside it, stand texts
to learn from: a ``completion``, or a pair of ``chosen`` and ``rejected`` (text, or a list with one message of the assistant);
other columns are kept for judges that ask for them by name (``Example.meta``). All rows are checked before anything runs, and the first one that cannot be used is named with its file and
line (for Parquet and hub datasets: its row, counted from 1).

Held-out questions are chosen by a hash of their prompts, so they stay the same from run to run, whatever the seed and
the order of the rows, and a prompt that occurs twice never falls on both sides. At most a quarter of the rows is held
out. A held-out file of its own is joined by a comma: ``train.jsonl,heldout.jsonl``.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from policyopt.errors import UserError
from policyopt.items import TEXTS, Example, JudgeSpec, Message, Task, user
from policyopt.judging.judges import judge_spec, row_error
from policyopt.judging.kinds import parse_number
from policyopt.judging.names import Written

MAX_TOKENS = 512
"""Suggested response budget of a dataset: nothing is known about it."""

COLUMNS = ("prompt", "answer", "solution", *TEXTS)

_ROLES = ("system", "user", "assistant", "tool")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")

Row = tuple[str, int, Any]
"""Where a row is from (``"data.jsonl, line"``), its number, and what it holds."""


def load_dataset_task(spec: str, *, judge: Written | None, options: Mapping[str, Any] | None, heldout: int) -> Task:
    """The task made of ``spec``: a file, two files joined by a comma, or ``owner/name`` or ``owner/name:config``.

    Without a judge, ``choice`` is taken where every answer is a letter from A to E, ``number`` where every answer is a
    number, ``math`` where an answer holds a dollar sign or a backslash, and ``exact`` otherwise.

    Raises:
        UserError: A file that is not there or not readable, an empty dataset, a row that cannot be used, a judge that
            cannot work, or held-out prompts that are in the training file too.
    """
    given = judge_spec(judge, options) if judge is not None or options else None
    first, comma, second = spec.partition(",")
    train = _examples(first)
    held = _examples(second) if comma else None
    answered, texts = _alike([*train, *(held or [])])
    if judge is not None and not answered:
        raise UserError(f"{spec}: its rows have no 'answer', so that there is nothing to judge by: leave --judge out")
    chosen = given or JudgeSpec(_suitable([e.answer for e in train])) if answered else None
    for example in [*train, *(held or [])] if chosen else ():
        if chosen and (error := row_error(chosen, example)):
            raise UserError(f"{_place(example)}: {error}")
    if held is None:
        train, held = _split(train, heldout, spec)
    else:
        _refuse_overlap(train, held)
        held = _by_hash(held)[:heldout]
    return Task(
        Path(first).name if _is_file(first) else first, tuple(train), tuple(held), chosen, MAX_TOKENS, texts=texts
    )


def _alike(examples: list[Example]) -> tuple[bool, frozenset[str]]:
    """Whether all rows have an answer, and the given texts that all of them have; refuses rows that differ."""
    first = examples[0]
    names = ("answer", *TEXTS)
    for example in examples:
        for name in names:
            if bool(getattr(example, name)) != bool(getattr(first, name)):
                one, other = (first, example) if getattr(first, name) else (example, first)
                raise UserError(
                    f"{_place(other)}: no {name!r}, which {_place(one)} has: all rows need the same columns"
                )
    return bool(first.answer), frozenset(name for name in TEXTS if getattr(first, name))


# Reading


def _is_file(source: str) -> bool:
    return source.endswith((".jsonl", ".parquet"))


def need_source(source: str) -> None:
    """Raises ``UserError`` for a file that is not there, and for what is neither a file of rows nor an id on the hub."""
    if _is_file(source):
        if not Path(source).is_file():
            raise UserError(f"there is no file {source!r}")
    elif Path(source).is_file():
        raise UserError(f"{source}: expected a .jsonl file (one JSON object on each line) or a .parquet file")
    elif not _HUB_ID.fullmatch(source):
        raise UserError(f"{source!r} is no .jsonl or .parquet file and no id of a dataset on the hub (owner/name)")


def _examples(source: str) -> list[Example]:
    need_source(source)
    if _is_file(source):
        rows = _jsonl(Path(source)) if source.endswith(".jsonl") else _parquet(Path(source))
    else:
        rows = _hub(source)
    examples = [_example(*row) for row in rows]
    if not examples:
        raise UserError(f"{source}: the dataset is empty")
    return examples


def _jsonl(path: Path) -> Iterator[Row]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                if text.strip():
                    yield f"{path.name}, line", number, json.loads(text.rstrip())
            except UnicodeDecodeError as error:
                raise UserError(f"{path}, line {number}: not UTF-8 ({error.reason} at byte {error.start})") from None
            except json.JSONDecodeError as error:
                raise UserError(f"{path}, line {number}: not JSON ({error.msg} at column {error.colno})") from None
            except RecursionError:
                raise UserError(f"{path}, line {number}: nested too deep") from None
            except ValueError:
                raise UserError(f"{path}, line {number}: holds a number with thousands of digits") from None


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            _need_columns(str(path), names)
            number = 0
            for batch in file.iter_batches(columns=[name for name in COLUMNS if name in names]):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path.name}, row", number, row
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from None


def _hub(source: str) -> Iterator[Row]:
    import datasets

    name, _, config = source.partition(":")
    try:
        rows = datasets.load_dataset(name, config or None, split="train")
    except Exception as error:
        # The library raises anything from ConnectionError to ValueError; each means that there are no rows
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"the dataset {source!r} could not be loaded from the hub: {first}") from None
    names = rows.column_names or []
    _need_columns(source, names)
    for number, row in enumerate(rows.select_columns([name for name in COLUMNS if name in names]), 1):
        yield f"{source}, row", number, row


_KINDS = frozenset({"answer", "completion", "chosen"})
"""What a row has at least one of."""


def _need_columns(source: str, columns: Iterable[str]) -> None:
    columns = list(columns)
    told = {"prompt"} if _KINDS.intersection(columns) else {"prompt", "answer"}
    missing = told - set(columns)
    if missing:
        raise UserError(f"{source}: no column {' or '.join(sorted(missing))!r}; its columns are {', '.join(columns)}")


# Checking


def _example(where: str, number: int, row: Any) -> Example:
    place = f"{where} {number}"
    if not isinstance(row, dict):
        raise UserError(f"{place}: expected an object with prompt and answer, not {_kind(row)}")
    row = {name: value for name, value in row.items() if value is not None}
    wanted = ["prompt"] if _KINDS.intersection(row) else ["prompt", "answer"]
    if "chosen" in row or "rejected" in row:
        wanted = ["prompt", "chosen", "rejected"]
    for name in wanted:
        if name not in row:
            raise UserError(f"{place}: no {name!r}" + (f" (it has {', '.join(map(str, row))})" if row else ""))
    source = where.rpartition(", ")[0]
    texts: dict[str, Any] = {name: _given(f"{place}: {name}", row[name]) for name in TEXTS if name in row}
    return Example(
        f"{source}:{number}",
        _prompt(place, row["prompt"]),
        _answer(place, row["answer"]) if "answer" in row else "",
        _solution(place, row.get("solution")),
        {name: value for name, value in row.items() if name not in COLUMNS},
        **texts,
        chat=isinstance(row["prompt"], list),
    )


def _place(example: Example) -> str:
    source, _, number = example.id.rpartition(":")
    return f"{source}, {'line' if source.endswith('.jsonl') else 'row'} {number}"


def _prompt(place: str, prompt: Any) -> tuple[Message, ...]:
    if isinstance(prompt, str):
        if not prompt.strip():
            raise UserError(f"{place}: prompt is empty")
        return user(_unicode(f"{place}: prompt", prompt))
    if not isinstance(prompt, list):
        raise UserError(f"{place}: prompt is {_kind(prompt)}, expected text or a list of chat messages")
    if not prompt:
        raise UserError(f"{place}: prompt has no messages")
    return tuple(_message(f"{place}: prompt, message {i}", message) for i, message in enumerate(prompt, 1))


def _message(place: str, message: Any) -> Message:
    if not isinstance(message, dict):
        raise UserError(f"{place} is {_kind(message)}, expected an object with role and content")
    # Parquet fills fields that only other messages have
    message = {key: value for key, value in message.items() if value is not None}
    if set(message) != {"role", "content"}:
        raise UserError(f"{place} has {', '.join(map(str, message)) or 'nothing'}, expected role and content")
    if message["role"] not in _ROLES:
        raise UserError(f"{place}: role is {message['role']!r}, expected one of {', '.join(_ROLES)}")
    if not isinstance(message["content"], str):
        raise UserError(f"{place}: content is {_kind(message['content'])}, expected text")
    return {"role": message["role"], "content": _unicode(f"{place}: content", message["content"])}


def _unicode(place: str, text: str) -> str:
    """``text`` itself. JSON can hold half of a surrogate pair, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{place}: not Unicode text (half a surrogate pair at character {error.start})") from None
    return text


def _answer(place: str, answer: Any) -> str:
    if isinstance(answer, str) and answer.strip():
        return _unicode(f"{place}: answer", answer)
    if isinstance(answer, str):
        raise UserError(f"{place}: answer is empty")
    if isinstance(answer, bool) or not isinstance(answer, int | float):
        raise UserError(f"{place}: answer is {_kind(answer)}, expected text or a number")
    if not math.isfinite(answer):
        raise UserError(f"{place}: answer is {answer}, expected a finite number")
    return str(answer)


def _solution(place: str, solution: Any) -> str | None:
    if solution is None:
        return None
    if not isinstance(solution, str):
        raise UserError(f"{place}: solution is {_kind(solution)}, expected text, or no solution at all")
    return _unicode(f"{place}: solution", solution) if solution.strip() else None


def _given(place: str, text: Any) -> str:
    """A text to learn from; of chat messages, what the assistant says in the only one."""
    if isinstance(text, list):
        messages = [_message(f"{place}, message {i}", message) for i, message in enumerate(text, 1)]
        if [m["role"] for m in messages] != ["assistant"]:
            raise UserError(f"{place}: expected one message of the assistant (what comes before belongs into prompt)")
        text = messages[0]["content"]
    if not isinstance(text, str):
        raise UserError(f"{place} is {_kind(text)}, expected text or a list with one message of the assistant")
    if not text.strip():
        raise UserError(f"{place} is empty")
    return _unicode(place, text)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)


# Judge and split


def _suitable(answers: list[str]) -> str:
    """The judge that fits the answers."""
    if all(re.fullmatch("[A-E]", answer.strip()) for answer in answers):
        return "choice"
    if any("$" in answer or "\\" in answer for answer in answers):
        return "math"
    if all(_is_number(answer) for answer in answers):
        return "number"
    return "exact"


def _is_number(answer: str) -> bool:
    return re.fullmatch(r"[\d\s.,eE/+-]+", answer) is not None and parse_number(answer) is not None


def _key(example: Example) -> str:
    return json.dumps(example.prompt, sort_keys=True)


def _rank(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=16).digest()


def _by_hash(examples: list[Example]) -> list[Example]:
    return sorted(examples, key=lambda example: _rank(_key(example)))


def _split(rows: list[Example], heldout: int, source: str) -> tuple[list[Example], list[Example]]:
    """Training and held-out rows: whole prompts in the order of their hashes, up to a quarter of the rows."""
    quota = min(heldout, len(rows) // 4)
    count: defaultdict[str, int] = defaultdict(int)
    for row in rows:
        count[_key(row)] += 1
    chosen: set[str] = set()
    for key in sorted(count, key=_rank):
        if count[key] <= quota:
            chosen.add(key)
            quota -= count[key]
    if not chosen:
        raise UserError(
            f"{source}: {len(rows)} rows with {len(count)} different prompts are too few to hold a quarter out; "
            "add rows, or give a held-out file after a comma (train.jsonl,heldout.jsonl)"
        )
    return [row for row in rows if _key(row) not in chosen], [row for row in rows if _key(row) in chosen]


def _refuse_overlap(train: list[Example], held: list[Example]) -> None:
    seen = {_key(example): example for example in reversed(train)}
    for example in held:
        twin = seen.get(_key(example))
        if twin is not None:
            raise UserError(
                f"{_place(example)}: this prompt is in the training data too ({_place(twin)}); "
                "take it out of one of them, or nothing can be said about held-out accuracy"
            )
