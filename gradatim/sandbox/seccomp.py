"""Which system calls has no program a need for?

``program()`` gives a filter in the kernel's classic BPF, ready for ``bwrap --seccomp``: eight bytes an instruction,
packed here by hand, because the rule is short and a library would be one more thing to trust. What is on the list is
what has let programs out of sandboxes, or look at and disturb others: tracing, mounting, new namespaces, the kernel's
keys, its own programs and modules, io_uring, and sockets of every family but AF_UNIX (so not even the loopback).
A refused call returns an error, as it would from an older kernel or without rights; only a call made for another
architecture, which would slip past the numbers, kills the process.

It is the third wall, behind namespaces and resource limits, and not meant to hold alone.
"""

from __future__ import annotations

import errno
import functools
import platform
import struct

__all__ = ["ARCHITECTURES", "program"]

ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""Machine name -> (the kernel's AUDIT_ARCH number, the column of ``NUMBERS``)."""

NONE = -1
NUMBERS = {
    # Looking into other processes.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    # File systems.
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    # Namespaces; ``clone`` is looked at more closely below.
    "unshare": (272, 97),
    "setns": (308, 268),
    # The kernel itself.
    "bpf": (321, 280),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "syslog": (103, 116),
    "acct": (163, 89),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "iopl": (172, NONE),
    "ioperm": (173, NONE),
    "modify_ldt": (154, NONE),
    "vhangup": (153, 58),
    "personality": (135, 92),
    # Memory that no limit of a process counts, and the kernel's keys.
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "memfd_secret": (447, 447),
}
ABSENT = {
    # Answered as by a kernel without them, so that libraries take their other way: glibc then calls ``clone``, whose
    # flags can be read here, and files without a name, which no limit counts, are made in the work folder instead.
    "clone3": (435, 435),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "memfd_create": (319, 279),
}
CLONE, SOCKET, SOCKETPAIR, IOCTL = (56, 220), (41, 198), (53, 199), (16, 29)
NAMESPACE_FLAGS = 0x7E020000
AF_UNIX = 1
TERMINAL_REQUESTS = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX: they put words into a terminal as if its user had typed them."""

LOAD, EQUAL, SET, AT_LEAST, RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
ALLOW, ERROR, KILL = 0x7FFF0000, 0x00050000, 0x80000000
NUMBER, ARCHITECTURE, FIRST, SECOND = 0, 4, 16, 24
"""Offsets into the kernel's ``seccomp_data``: call number, architecture, low half of the first and second argument."""

X32 = 0x40000000
"""x86-64 has a second set of call numbers with this bit set."""

Step = tuple[int, int, str, str]
"""Instruction, operand, and the label to go to when it holds and when not; "" is the next instruction."""


@functools.cache
def program(machine: str | None = None) -> bytes:
    """The filter for ``machine`` (this one when None); ``KeyError`` for one that is not in ``ARCHITECTURES``."""
    audit, column = ARCHITECTURES[machine or platform.machine()]
    steps: list[Step] = [
        (LOAD, ARCHITECTURE, "", ""),
        (EQUAL, audit, "", "kill"),
        (LOAD, NUMBER, "", ""),
        (AT_LEAST, X32, "kill", ""),
    ]
    steps += [(EQUAL, row[column], "forbidden", "") for row in NUMBERS.values() if row[column] != NONE]
    steps += [(EQUAL, row[column], "absent", "") for row in ABSENT.values()]
    steps += [
        (EQUAL, CLONE[column], "clone", ""),
        (EQUAL, SOCKET[column], "socket", ""),
        (EQUAL, SOCKETPAIR[column], "socket", ""),
        (EQUAL, IOCTL[column], "ioctl", "allow"),
    ]
    blocks: dict[str, list[Step]] = {
        "clone": [(LOAD, FIRST, "", ""), (SET, NAMESPACE_FLAGS, "forbidden", "allow")],
        "socket": [(LOAD, FIRST, "", ""), (EQUAL, AF_UNIX, "allow", "family")],
        "ioctl": [
            (LOAD, SECOND, "", ""),
            (EQUAL, TERMINAL_REQUESTS[0], "forbidden", ""),
            (EQUAL, TERMINAL_REQUESTS[1], "forbidden", "allow"),
        ],
        "allow": [(RETURN, ALLOW, "", "")],
        "forbidden": [(RETURN, ERROR | errno.EPERM, "", "")],
        "absent": [(RETURN, ERROR | errno.ENOSYS, "", "")],
        "family": [(RETURN, ERROR | errno.EAFNOSUPPORT, "", "")],
        "kill": [(RETURN, KILL, "", "")],
    }
    return _assemble(steps, blocks)


def _assemble(steps: list[Step], blocks: dict[str, list[Step]]) -> bytes:
    """Lay the blocks behind the steps and turn labels into distances, of which the kernel takes one byte each."""
    places = {}
    for label, block in blocks.items():
        places[label] = len(steps)
        steps = steps + block
    packed = b""
    for at, (code, operand, yes, no) in enumerate(steps):
        jumps = [places[label] - at - 1 if label else 0 for label in (yes, no)]
        packed += struct.pack("=HBBI", code, *jumps, operand)
    return packed
