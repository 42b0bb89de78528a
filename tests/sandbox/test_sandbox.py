"""Programs between walls: how they end, what they may use, and that nothing of them is left."""

from __future__ import annotations

import errno
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from policyopt.errors import UserError
from policyopt.sandbox import Call, Limits, called, check, python, run, walls
from policyopt.sandbox.filters import seccomp

try:
    check()
    REASON = ""
except UserError as error:
    REASON = str(error)
sandboxed = pytest.mark.skipif(bool(REASON), reason=REASON)


@sandboxed
@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        ("exit 0", "ok", 0),
        ("exit 7", "exit", 7),
        ("kill -9 $$", "signal", -9),
        ("kill -11 $$", "signal", -11),
        ("while :; do :; done", "time", None),
        ("sleep 100", "time", None),
        ("exec >&- 2>&-; sleep 100", "time", None),
        ("yes", "output", None),
        ("while :; do echo x >&2; done", "output", None),
        ("i=0; while [ $i -lt 40 ]; do sleep 100 & i=$((i+1)); done; wait", "processes", None),
        ("exec >&- 2>&-; sleep 0.3; exit 3", "exit", 3),
    ],
)
def test_it_is_said_how_a_program_ended(script: str, status: str, code: int | None) -> None:
    found = run(["sh", "-c", script], limits=Limits(cpu=1, wall=2, output_kb=64, processes=8))
    if status == "processes" and "fork" in found.stderr:  # it gave up by itself before anybody counted
        return
    assert (found.status, found.code) == (status, code), found
    assert found.seconds < 8 and len(found.stdout) + len(found.stderr) <= 64 * 1024
    assert found.ok == (status == "ok")


@sandboxed
def test_input_output_and_files_go_through_as_they_are() -> None:
    text = "é\n" * 60000
    found = run(["sh", "-c", "cat; cat in/a.txt >&2; pwd >&2"], {"in/a.txt": b"from a file\n"}, input=text)
    assert found.stdout == text and found.stderr == "from a file\n/tmp/work\n" and found.ok
    assert run(["true"], input="x" * 10**6).ok, "a program need not read what it is given"
    assert run(["printf", r"\377"]).stdout == "\ufffd"
    assert run(["sh", "-c", "echo first; sleep 100 & echo second"]).stdout == "first\nsecond\n"


@sandboxed
@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "", "a\0b", "."])
def test_a_file_cannot_lead_out(name: str) -> None:
    with pytest.raises(ValueError, match="relative path"):
        run(["true"], {name: "x"})


def test_limits_out_of_range_are_refused() -> None:
    for name, value in (("cpu", 0), ("wall", float("inf")), ("memory_mb", -1), ("processes", True), ("disk_mb", "x")):
        with pytest.raises(UserError, match=name):
            Limits(**{name: value})


@sandboxed
def test_a_command_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match="no command 'vvp-of-nobody'"):
        run(["vvp-of-nobody"])


@sandboxed
def test_calls_go_on_behind_one_that_ends_the_program() -> None:
    code = (
        "import os\n"
        "def add(a, b):\n"
        "    if a == 1: os._exit(0)\n"
        "    if a == 2:\n"
        "        while True: pass\n"
        "    return a + b\n"
        "class Solution:\n"
        "    def twice(self, x, by=2): return {'found': (x * by,)}\n"
    )
    calls = [Call("add", (n, 1)) for n in range(4)] + [Call("Solution.twice", (4,), {"by": 3}), Call("nobody", ())]
    found = called(code, calls, python(), Limits(cpu=1, wall=2), 20)
    assert [reply.value for reply in found] == [1, None, None, 4, {"found": [12]}, None]
    assert [reply.error.split(":")[0] for reply in found] == ["", "ended early", "took too long", "", "", "KeyError"]
    [late] = called("def add(a, b): return 7", calls[:1], python(), Limits(), 0)
    assert "no time left" in late.error
    [first, second] = called("def f(:", [Call("f"), Call("f")], python(), Limits(), 5)
    assert first == second and "SyntaxError" in first.error


# Who runs it ---------------------------------------------------------------------------------------------------------

_ASKS = """
import sys; sys.path[:] = {path!r}
from policyopt.sandbox import run, Limits
found = run(["sh", "-c", {script!r}], limits=Limits(wall=60))
print(found.status, found.stdout)
"""


def _other(script: str) -> list[str]:
    return [sys.executable, "-c", _ASKS.format(path=[p or "." for p in sys.path], script=script)]


@sandboxed
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_an_ordinary_user_runs_programs_too() -> None:
    """A child becomes nobody once Python is loaded, which may lie where nobody can read."""
    code = (
        "import sys; sys.path[:] = {path!r}\n"
        "import os\n"
        "from policyopt.sandbox import run, Limits\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "print(run(['sh', '-c', 'id -u; ls /']).stdout, run(['sleep', '9'], limits=Limits(wall=0.3)).status)\n"
        "f = run(['sh', '-c', 'for i in 1 2 3 4 5 6 7 8 9; do sleep 9 & done; wait'], limits=Limits(wall=3, processes=8)); print(f.status)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", code.format(path=[os.path.abspath(p) for p in sys.path])], capture_output=True, text=True, cwd="/"
    )  # fmt: skip
    lines = said.stdout.split()
    assert (
        lines[0] == "65534" and "home" not in lines and "root" not in lines and lines[-2:] == ["time", "processes"]
    ), said


@sandboxed
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_the_caller_ends(number: signal.Signals) -> None:
    """Ctrl-C, and deaths that no handler sees."""
    mark = f"98765.{os.getpid()}{int(number)}"
    caller = subprocess.Popen(_other(f"sleep {mark} & setsid sleep {mark} & sleep {mark}"), start_new_session=True)
    try:
        assert _wait(lambda: len(_sleepers(mark)) >= 3), "it did not start"
        caller.send_signal(number)
        caller.wait(20)
        assert _wait(lambda: not _sleepers(mark)), "something is left"
    finally:
        caller.kill()
        caller.wait()


def _sleepers(mark: str) -> list[str]:
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if Path(f"/proc/{name}/cmdline").read_text().split("\0")[:2] == ["sleep", mark]:
                found.append(name)
        except OSError:
            pass
    return found


def _wait(true: object, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False


# Without walls -------------------------------------------------------------------------------------------------------


@pytest.fixture
def fresh() -> object:
    """What was found out of the machine is forgotten, before and after."""
    for found in (walls._bubblewrap, walls._features, walls._proven):
        found.cache_clear()
    yield
    for found in (walls._bubblewrap, walls._features, walls._proven):
        found.cache_clear()


def test_nothing_runs_bare_where_there_is_no_bubblewrap(
    fresh: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="apt-get install bubblewrap"):
        run(["touch", str(tmp_path / "ran")])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("help_text", ["--size --tmpfs", "--tmpfs"])
def test_nothing_runs_bare_where_bubblewrap_cannot(
    help_text: str, fresh: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A bwrap that may not make namespaces, and one that is too old."""
    bwrap = tmp_path / "bwrap"
    bwrap.write_text(
        f'#!/bin/sh\n[ "$1" = --help ] && echo "{help_text}" && exit 0\necho "bwrap: No permissions to create new namespace" >&2\nexit 1\n'
    )
    for place in (bwrap, tmp_path, *(p for p in tmp_path.parents if p.is_relative_to("/tmp") and p != Path("/tmp"))):
        place.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    wanted = "No permissions to create new namespace.*kernel.apparmor" if "--size" in help_text else "0.7 or newer"
    with pytest.raises(UserError, match=wanted):
        run(["touch", str(tmp_path / "ran")])
    assert not (tmp_path / "ran").exists()


# The filter ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", ["x86_64", "amd64", "aarch64", "arm64"])
def test_a_filter_is_one_that_the_kernel_takes(machine: str) -> None:
    """Every jump stays inside, every way ends, and calls get what they should: run here, instruction by instruction."""
    code = seccomp(machine)
    assert code is not None and len(code) % 8 == 0 and len(code) // 8 <= 4096
    arm = machine in ("aarch64", "arm64")
    audit, number = (0xC00000B7, {"read": 63, "clone": 220, "socket": 198, "mount": 40, "ptrace": 117}) if arm else (
        0xC000003E, {"read": 0, "clone": 56, "socket": 41, "mount": 165, "ptrace": 101})  # fmt: skip
    allow, kill, refuse = 0x7FFF0000, 0x80000000, 0x00050000
    assert _verdict(code, audit, number["read"], 0) == allow
    assert _verdict(code, 0x40000003, number["read"], 0) == kill
    assert (
        _verdict(code, audit, number["mount"], 0) == _verdict(code, audit, number["ptrace"], 0) == refuse | errno.EPERM
    )
    assert _verdict(code, audit, 435, 0) == refuse | errno.ENOSYS
    assert _verdict(code, audit, number["clone"], 0x003D0F00) == allow, "a thread"
    assert _verdict(code, audit, number["clone"], 17) == allow, "a fork"
    for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert _verdict(code, audit, number["clone"], flag | 17) == refuse | errno.EPERM
    assert _verdict(code, audit, number["socket"], 1) == allow
    for family in (2, 10, 16, 17, 38, 40):
        assert _verdict(code, audit, number["socket"], family) == refuse | errno.EAFNOSUPPORT
    if not arm:
        assert _verdict(code, audit, 0x40000000 + 1, 0) == kill


def _verdict(code: bytes, audit: int, number: int, first: int) -> int:
    import struct

    data = {0: number, 4: audit, 16: first}
    at, held = 0, 0
    while True:
        kind, yes, no, k = struct.unpack_from("=HBBI", code, 8 * at)
        at += 1
        if kind == 0x06:
            return int(k)
        if kind == 0x20:
            held = data[k]
        else:
            at += yes if {0x15: held == k, 0x25: held > k, 0x45: bool(held & k)}[kind] else no


def test_no_filter_is_made_for_a_processor_that_is_not_known() -> None:
    assert seccomp("riscv64") is None


@sandboxed
def test_it_is_said_whether_calls_were_filtered(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(["true"]).filtered == (platform.machine() in ("x86_64", "aarch64"))
    for place in ("policyopt.sandbox.walls.seccomp", "policyopt.sandbox.running.seccomp"):
        monkeypatch.setattr(place, lambda: None)
    found = run(["true"])
    assert found.ok and not found.filtered


@sandboxed
def test_walls_close_what_they_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        run(["sh", "-c", "exit 1"], {"a": "x"}, input="x")
        run(["sleep", "9"], limits=Limits(wall=0.1))
    assert len(os.listdir("/proc/self/fd")) <= before
