"""Which system calls a program in the sandbox may not make, as a filter that the kernel runs (classic BPF for seccomp).

The namespaces are the wall. The filter takes away what programs have no use for and kernels have been broken through:
further namespaces, mounts, tracing, BPF, performance counters, io_uring, keys, modules, sockets to anything but the own machine's
files, and memory that no limit counts (memfd, System V segments, message queues). A call that is refused fails with an
error; a call by another table of the same processor (32 bits on x86) ends the process.
"""

from __future__ import annotations

import errno
import platform
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass

_NEW_NAMESPACES = 0x7E020080
"""The flags of ``clone`` that make a namespace: NEWTIME 0x80, NEWNS 0x20000, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.

``clone`` reads its lowest byte as the signal at its end, so that NEWTIME can only be asked for by ``clone3`` and ``unshare``.
"""
_CLONE_FLAGS = _NEW_NAMESPACES & ~0xFF

_LATER = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429, "fsopen": 430,
    "fsconfig": 431, "fsmount": 432, "fspick": 433, "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442,
    "quotactl_fd": 443, "memfd_secret": 447,
}  # fmt: skip
"""Calls that are so new that every processor has the same numbers for them."""


@dataclass(frozen=True)
class _Table:
    """The numbers of one processor."""

    audit: int
    """What seccomp calls the processor."""
    clone: int
    socket: int
    socketpair: int
    refused: Mapping[str, int]
    most: int = 0xFFFFFFFF
    """Numbers above are another table's (x32)."""


_CLONE3 = 435

_TABLES = {
    "x86_64": _Table(0xC000003E, 56, 41, 53, {
        "ptrace": 101, "syslog": 103, "personality": 135, "ustat": 136, "sysfs": 139, "vhangup": 153, "modify_ldt": 154,
        "pivot_root": 155, "_sysctl": 156, "adjtimex": 159, "chroot": 161, "acct": 163, "settimeofday": 164, "mount": 165,
        "umount2": 166, "swapon": 167, "swapoff": 168, "reboot": 169, "sethostname": 170, "setdomainname": 171, "iopl": 172,
        "ioperm": 173, "create_module": 174, "init_module": 175, "delete_module": 176, "quotactl": 179, "nfsservctl": 180,
        "lookup_dcookie": 212, "clock_settime": 227, "mbind": 237, "set_mempolicy": 238, "get_mempolicy": 239, "mq_open": 240,
        "kexec_load": 246, "add_key": 248, "request_key": 249, "keyctl": 250, "migrate_pages": 256, "unshare": 272, "vmsplice": 278,
        "move_pages": 279, "perf_event_open": 298, "fanotify_init": 300, "name_to_handle_at": 303, "open_by_handle_at": 304,
        "clock_adjtime": 305, "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "finit_module": 313,
        "memfd_create": 319, "kexec_file_load": 320, "bpf": 321, "userfaultfd": 323, "uselib": 134,
        "shmget": 29, "shmat": 30, "shmctl": 31, "semget": 64, "msgget": 68, **_LATER,
    }, most=0x3FFFFFFF),
    "aarch64": _Table(0xC00000B7, 220, 198, 199, {
        "lookup_dcookie": 18, "umount2": 39, "mount": 40, "pivot_root": 41, "nfsservctl": 42, "chroot": 51, "vhangup": 58,
        "quotactl": 60, "vmsplice": 75, "acct": 89, "personality": 92, "unshare": 97, "kexec_load": 104, "init_module": 105,
        "delete_module": 106, "clock_settime": 112, "syslog": 116, "ptrace": 117, "reboot": 142, "sethostname": 161,
        "setdomainname": 162, "settimeofday": 170, "adjtimex": 171, "mq_open": 180, "msgget": 186, "semget": 190, "shmget": 194,
        "shmctl": 195, "shmat": 196, "add_key": 217, "request_key": 218, "keyctl": 219, "swapon": 224, "swapoff": 225, "mbind": 235,
        "get_mempolicy": 236, "set_mempolicy": 237, "migrate_pages": 238, "move_pages": 239, "perf_event_open": 241,
        "fanotify_init": 262, "name_to_handle_at": 264, "open_by_handle_at": 265, "clock_adjtime": 266, "setns": 268,
        "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272, "finit_module": 273, "memfd_create": 279, "bpf": 280,
        "userfaultfd": 282, "kexec_file_load": 294, **_LATER,
    }),
}  # fmt: skip

# The instructions of a filter: load a word of the call, jump where it is equal, above or has bits, end with a verdict
_LOAD, _EQUAL, _ABOVE, _BITS, _END = 0x20, 0x15, 0x25, 0x45, 0x06
_NUMBER, _PROCESSOR, _FIRST = 0, 4, 16
"""Where number, processor and the low word of the first argument stand (both processors are little-endian)."""
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000


def seccomp(machine: str | None = None) -> bytes | None:
    """The filter for a processor as bubblewrap takes it, ``None`` where the processor is unknown.

    ``machine`` is what ``platform.machine()`` calls it; unset: the one that this runs on.
    """
    table = _TABLES.get({"amd64": "x86_64", "arm64": "aarch64"}.get(machine or "", machine or platform.machine()))
    if table is None:
        return None
    code: list[tuple[int, int, int, int]] = [
        (_LOAD, 0, 0, _PROCESSOR),
        (_EQUAL, 1, 0, table.audit),
        (_END, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_ABOVE, 0, 1, table.most),
        (_END, 0, 0, _KILL),
        # It cannot be looked into; where it is not there, libraries take clone
        (_EQUAL, 0, 1, _CLONE3),
        (_END, 0, 0, _ERROR | errno.ENOSYS),
    ]
    for number in sorted(table.refused.values()):
        code += [(_EQUAL, 0, 1, number), (_END, 0, 0, _ERROR | errno.EPERM)]
    code += [
        (_EQUAL, 0, 4, table.clone),
        (_LOAD, 0, 0, _FIRST),
        (_BITS, 0, 1, _CLONE_FLAGS),
        (_END, 0, 0, _ERROR | errno.EPERM),
        (_LOAD, 0, 0, _NUMBER),
    ]
    for number in (table.socket, table.socketpair):
        code += [
            (_EQUAL, 0, 4, number),
            (_LOAD, 0, 0, _FIRST),
            (_EQUAL, 1, 0, int(socket.AF_UNIX)),
            (_END, 0, 0, _ERROR | errno.EAFNOSUPPORT),
            (_LOAD, 0, 0, _NUMBER),
        ]
    code.append((_END, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)
