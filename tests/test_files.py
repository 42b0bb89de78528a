"""Files of users are read within limits: what is wrong with one is a line, never a traceback, and never a long wait."""

from __future__ import annotations

import errno
from pathlib import Path
from unittest import mock

import pytest

from policyopt.errors import UserError
from policyopt.files import Malformed, parse_json, parse_yaml, read_json, read_yaml, write_whole

LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("[" * 2_000, 0, "nested more than 100 deep"),
        ("{a: " * 150 + "1" + "}" * 150, 1, "nested more than 100 deep"),
        (LAUGHS, 6, "stands for more than 100000 values"),
        ("a: &a [*a]", 1, "an alias stands inside"),
        ("a: 1\nb: 2\na: 3", 3, "the key 'a' stands there twice"),
        ("a:\n  b: 1\n  b: 1", 3, "the key 'b' stands there twice"),
        ("k" * 1001 + ": 1", 1, "a key of 1001 characters"),
        ("x: 2024-99-99", 0, "cannot be read: month"),
        ("x: " + "9" * 5000, 0, "cannot be read"),
        ("x: !!bool q", 0, "cannot be read"),
        ("x: !!timestamp q", 0, "cannot be read"),
        ("x: !!python/object/apply:os.system [ls]", 1, "could not determine a constructor"),
        (b"\xff\xfe\xfa", 0, "truncated"),
    ],
)
def test_yaml_that_is_refused(text: str | bytes, line: int, reason: str) -> None:
    with pytest.raises(Malformed, match=reason) as caught:
        parse_yaml(text)
    assert caught.value.line == line


def test_yaml_that_people_write() -> None:
    text = "base: &base {lr: 0.1, steps: 3}\nmine: {<<: *base, steps: 4}\nagain: *base\nlist: [1, 1, a]"
    assert parse_yaml(text)["mine"] == {"lr": 0.1, "steps": 4}
    assert parse_yaml("") is None


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("[" * 100_000, 0, "nested more than 100 deep"),
        ("[" * 101 + "]" * 101, 0, "nested more than 100 deep"),
        ('[[1],\n{"b": {\n"a": 1, "a": 2}}]', 2, "the key 'a' stands twice"),
        ('{"' + "k" * 1001 + '": 1}', 1, "a key of 1001 characters"),
        ("[NaN]", 0, "NaN is no number"),
        ("[-1e999]", 0, "beyond all bounds"),
        ("9" * 5000, 0, "thousands of digits"),
        ('{"a":\n}', 2, "Expecting value at column 1"),
        (b'"\xff"', 0, "not UTF-8"),
    ],
)
def test_json_that_is_refused(text: str | bytes, line: int, reason: str) -> None:
    with pytest.raises(Malformed, match=reason) as caught:
        parse_json(text)
    assert caught.value.line == line


def test_json_that_people_write() -> None:
    assert parse_json(b'\xef\xbb\xbf{"a": [{"b": 1.5}, {"b": null}]}') == {"a": [{"b": 1.5}, {"b": None}]}
    assert parse_json("[" * 100 + "]" * 100)
    assert parse_json("[NaN, 1e999]", finite=False)[1] == float("inf")


def test_a_file_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "mine"
    file.write_text('{\n"a": 1,}')
    with pytest.raises(UserError, match="mine, line 2: not JSON"):
        read_json(file)
    file.write_text("a: 1\na: 2")
    with pytest.raises(UserError, match=r"mine, line 2: not valid YAML .the key 'a'"):
        read_yaml(file)
    with pytest.raises(UserError, match="mine: larger than 0 MiB"):
        read_json(file, 4)
    with pytest.raises(UserError, match=r"cannot be read .Is a directory"):
        read_yaml(tmp_path)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", "old\ud800")
    assert (tmp_path / "a").read_text() == "old?"
    original = Path.write_bytes

    def half(self: Path, data: bytes) -> None:
        original(self, data[:1])
        raise OSError(errno.ENOSPC, "full")

    with mock.patch.object(Path, "write_bytes", half), pytest.raises(OSError, match="full"):
        write_whole(tmp_path / "a", "new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a", "old?")]
