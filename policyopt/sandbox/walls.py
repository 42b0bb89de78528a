"""The walls: how bubblewrap is started, as whom, and what is seen inside.

Inside there are ``/usr`` (with ``/bin``, ``/lib`` and their like), the two files of ``/etc`` that the loader of programs reads, what the
caller names, all read-only, a ``/proc`` and a ``/dev`` of its own, and one place to write, ``/tmp``, which lies in memory, is bounded
and goes with the program. There is no network, no home, and nothing of the caller's environment.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any

from policyopt.errors import UserError
from policyopt.sandbox.filters import seccomp
from policyopt.sandbox.limits import Limits

NOBODY = 65534
"""The user that a program is, inside; and outside, where the caller is root."""
WORK = "/tmp/work"
"""The working directory inside."""
PATH = "/usr/local/bin:/usr/bin:/bin"
ENVIRONMENT = {"PATH": PATH, "HOME": WORK, "LANG": "C.UTF-8", "TMPDIR": "/tmp", "PYTHONHASHSEED": "0"}
"""All that a program has of an environment; with hash seeds drawn anew, one program would not always print the same."""
STARTED = b"\x01"
"""What comes before a program's own output: what fails before it has never run."""

_ETC = ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "localtime")
_INSTALL = "on Linux, install bubblewrap (Debian, Ubuntu: apt-get install bubblewrap; Fedora: dnf install bubblewrap)"
_ALLOW = (
    "allow it user namespaces: outside of a container kernel.unprivileged_userns_clone=1, user.max_user_namespaces above 0 and, on "
    "Ubuntu 24.04 and later, kernel.apparmor_restrict_unprivileged_userns=0 (sysctl); in a container start it with "
    "--security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined"
)
_BEHIND = r"""
set -e
mount -t tmpfs -o mode=755,size=64k none /mnt
n="$1"; shift
i=0
while [ "$i" -lt "$n" ]; do mkdir "/mnt/$i"; mount --bind "$1" "/mnt/$i"; shift; i=$((i+1)); done
exec setpriv --reuid 65534 --regid 65534 --clear-groups -- "$@"
"""

_BOUNDED = r"""
set -e
least() { ulimit "$1" "$2" 2>/dev/null || [ "$(ulimit "$1")" -le "$2" ]; }
least -v "$1"; least -f "$2"; least -n 256; least -c 0; least -l 0
ulimit -S -t "$3"; ulimit -H -t $(($3+1))
ulimit -u "$4" 2>/dev/null || ulimit -p "$4"
shift 4
printf "\\001"
exec "$@"
"""
"""Bounds that the system holds, set by a shell inside; then a byte that says that the program was reached, and the program. One that is
lower already stays."""
SPARE = 8
"""Processes that the system allows above the limit, so that the look, which names the reason, comes first."""


@functools.cache
def _bubblewrap() -> str:
    """Where bubblewrap is. Raises ``UserError`` where there is none, or one that cannot bound what is written."""
    found = shutil.which("bwrap")
    if found is None:
        raise UserError(f"code runs only in a sandbox, and there is no bwrap here: {_INSTALL}")
    help_text = subprocess.run([found, "--help"], capture_output=True, text=True, check=False).stdout
    if "--size" not in help_text:
        raise UserError(f"{found} cannot bound the memory that files take: {_INSTALL}, 0.7 or newer")
    return found


@functools.cache
def _features() -> frozenset[str]:
    help_text = subprocess.run([_bubblewrap(), "--help"], capture_output=True, text=True, check=False).stdout
    return frozenset(name for name in ("--disable-userns",) if name in help_text)


def check() -> None:
    """Refuse where nothing can be run. Raises ``UserError`` that says what to install or to allow."""
    _bubblewrap()
    _proven()


@functools.cache
def _proven() -> None:
    """Run ``true`` once. Raises ``UserError`` with what bubblewrap says where it cannot."""
    with ExitStack() as stack:
        line = walls(["/bin/sh", "-c", "true"], {}, Limits(), (), stack)
        keep: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if line.as_nobody else {}
        done = subprocess.run(
            line.arguments, env=ENVIRONMENT, cwd="/", pass_fds=line.fds, stdin=subprocess.DEVNULL, capture_output=True,
            timeout=30, check=False, **keep,
        )  # fmt: skip
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit status {done.returncode}"]
        raise UserError(f"code runs only in a sandbox, and bwrap cannot make one here ({said[-1][:200]}): {_ALLOW}")


class Line:
    """A command line and what it needs."""

    def __init__(self, arguments: list[str], fds: list[int], as_nobody: bool) -> None:
        self.arguments, self.fds, self.bubblewrap = arguments, fds, _bubblewrap()
        self.as_nobody = as_nobody
        """Who starts it has to become nobody first."""


def walls(
    program: Sequence[str], files: Mapping[str, str | bytes], limits: Limits, reads: Sequence[str], stack: ExitStack
) -> Line:
    """The command line that runs ``program`` between walls; ``stack`` closes the files that it is handed."""
    root = os.geteuid() == 0
    hidden = [path for path in reads if root and not _open_to_all(path)]
    seen = {path: f"/mnt/{hidden.index(path)}" if path in hidden else path for path in reads}
    fds: list[int] = []

    def handed(data: bytes) -> str:
        fds.append(_held(data, stack))
        return str(fds[-1])

    inside = [
        _bubblewrap(), "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try",
        "--uid", str(NOBODY), "--gid", str(NOBODY), "--hostname", "sandbox", "--new-session", "--die-with-parent", "--cap-drop", "ALL",
        *(["--disable-userns"] if "--disable-userns" in _features() else []),
        *_system(),
        "--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev",
        "--perms", "1777", "--size", str(int(limits.disk_mb * 2**20)), "--tmpfs", "/tmp", "--dir", WORK, "--chdir", WORK,
        *(x for path in reads for x in ("--ro-bind", seen[path], path)),
        *(x for name, data in files.items() for x in ("--file", handed(_bytes(data)), f"{WORK}/{_inside(name)}")),
        "--remount-ro", "/",
    ]  # fmt: skip
    if (bpf := seccomp()) is not None:
        inside += ["--seccomp", handed(bpf)]
    inside += ["--", "/bin/sh", "-c", _BOUNDED, "sh", *_bounds(limits), *program]
    if not hidden:
        return Line(inside, fds, root)
    # Places that root alone can reach are mounted where anybody can, in a mount namespace that ends with the program
    if not all(map(shutil.which, ("unshare", "setpriv", "mount"))):
        raise UserError(
            f"the sandbox runs as nobody, who cannot reach {hidden[0]}: run as an ordinary user, or install util-linux"
        )
    before = ["unshare", "--mount", "--propagation", "private", "--", "sh", "-c", _BEHIND, "sh", str(len(hidden))]
    return Line([*before, *hidden, *inside], fds, False)


def _bounds(limits: Limits) -> list[str]:
    """What the shell inside is told: KiB of memory, half KiB of a file, seconds, processes."""
    numbers = (
        limits.memory_mb * 1024, limits.disk_mb * 2048, math.ceil(limits.cpu), limits.processes + 2 + SPARE + _others(),
    )  # fmt: skip
    return [str(int(number)) for number in numbers]


def _others() -> int:
    """How many processes of the same user count against a new one: none where each user namespace has a count of its own."""
    major, minor, *_ = (int(x) for x in re.findall(r"\d+", os.uname().release))
    if (major, minor) >= (5, 14):
        return 0
    user = os.geteuid() or NOBODY
    count = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{name}").st_uid == user:
                count += len(os.listdir(f"/proc/{name}/task"))
    return count


def _system() -> list[str]:
    found = ["--ro-bind", "/usr", "/usr"]
    for name in ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"):
        if os.path.islink(name):
            found += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            found += ["--ro-bind", name, name]
    for name in _ETC:
        found += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    return found


def _open_to_all(path: str) -> bool:
    """Whether a stranger reaches a path."""
    real = Path(os.path.realpath(path))
    return all(os.stat(place).st_mode & 0o001 for place in (real, *real.parents) if place.is_dir())


def _bytes(data: str | bytes) -> bytes:
    return data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data


def _inside(name: str) -> str:
    """A file's name in the working directory. Raises ``ValueError`` for one that leads out of it."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\0" in name or not path.name:
        raise ValueError(f"a file of the sandbox is called {name!r}, expected a relative path without ..")
    return str(path)


def _held(data: bytes, stack: ExitStack) -> int:
    """An open file with these bytes, for a child process to read; it has no name."""
    file = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    file.write(data)
    file.flush()
    file.seek(0)
    return file.fileno()


def need(*commands: str) -> None:
    """Refuse where nothing can be run, or one of these commands is not there. Raises ``UserError`` that says what to install."""
    check()
    for name in commands:
        command([name])


def command(program: Sequence[str]) -> list[str]:
    """``program`` with its first word as a path. Raises ``UserError`` for a command that is not installed."""
    first, *rest = program
    found = first if "/" in first else shutil.which(first, path=PATH)
    if found is None:
        raise UserError(f"the sandbox has no command {first!r}: install it (Debian: {_package(first)})")
    return [found, *rest]


def _package(name: str) -> str:
    return f"apt-get install {'iverilog' if name == 'vvp' else name}"
