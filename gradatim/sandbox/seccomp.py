"""System call filter of the sandbox.

``program()`` returns a filter in the kernel's classic BPF for ``bwrap --seccomp``: eight bytes per instruction, packed
here, because the rules are short and a library would be a further trusted component. Forbidden are calls that have been
used to escape from sandboxes, or to inspect and disturb other processes: tracing, mounting, namespaces, kernel keys,
BPF programs and modules, io_uring, and sockets of every family but AF_UNIX (so not even the loopback). A forbidden call
returns an error, as it would on an older kernel or without privileges; only a call for another architecture, whose
numbers would not match, kills the process. A call that is newer than this list returns ENOSYS.

The filter also blocks kernel objects that two sandboxes reach through the same file, device or counter: locks, leases
and notifications on shared inodes, hints stored in an inode, pages moved between memory nodes, counters of the machine.
Locks are *granted without effect*: the work folder belongs to one program, so a process observes an uncontended lock,
while no lock exists that another sandbox could observe. The disposition of SIGCHLD stays at its default in the same
way: if a parent ignored it, its children would be removed without their CPU time being added to any process.

It is the third layer, after namespaces and resource limits, and not sufficient alone.
"""

from __future__ import annotations

import errno
import functools
import platform
import struct

ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""Machine name -> (the kernel's AUDIT_ARCH number, the column of ``NUMBERS``)."""

NONE = -1
NUMBERS = {
    # Access to other processes.
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
    # Namespaces; the flags of ``clone`` are checked below.
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
FILE_TIMES = {
    # On a device node these need write permission only, and every sandbox has the same node.
    "utime": (132, NONE),
    "utimes": (235, NONE),
    "futimesat": (261, NONE),
    "utimensat": (280, 88),
}
"""Granted without effect unless the devices are mounted read-only (``program``)."""
ABSENT = {
    # Answered as by a kernel without them, so that libraries use their fallbacks: glibc then calls ``clone``, whose
    # flags can be read here, and unnamed files, which no limit counts, are created in the work folder instead.
    "clone3": (435, 435),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "memfd_create": (319, 279),
    # Events of shared files, and requests counted for the whole machine.
    "inotify_init": (253, NONE),
    "inotify_init1": (294, 26),
    "io_setup": (206, 0),
    # The state of shared pages: which are in memory, and on which node.
    "mincore": (27, 232),
    "cachestat": (451, 451),
    "get_mempolicy": (239, 236),
    "set_mempolicy": (238, 237),
    "mbind": (237, 235),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "set_mempolicy_home_node": (450, 450),
    # Paths of the host behind the mounts.
    "statmount": (457, 457),
    "listmount": (458, 458),
    # Rule sets, which no limit counts.
    "landlock_create_ruleset": (444, 444),
}
NEWER = 463
"""First call number that this list does not cover; the same on both architectures."""

CLONE, SOCKET, SOCKETPAIR, IOCTL = (56, 220), (41, 198), (53, 199), (16, 29)
FCNTL, FLOCK, MMAP, SIGACTION, SETSOCKOPT = (72, 25), (73, 32), (9, 222), (13, 134), (54, 208)
NAMESPACE_FLAGS = 0x7E020000
AF_UNIX = 1
REQUESTS = (0x5412, 0x541C, 0xC0506617)
"""TIOCSTI and TIOCLINUX insert input into a terminal as if the user had typed it; FS_IOC_ADD_ENCRYPTION_KEY stores a
key in a file system."""

LOCKS = (6, 7, 37, 38)
"""F_SETLK, F_SETLKW, F_OFD_SETLK, F_OFD_SETLKW."""

SHARED_STATE = (5, 36, 1024, 1025, 1026, 1035, 1036, 1037, 1038)
"""F_GETLK, F_OFD_GETLK; F_SETLEASE, F_GETLEASE, F_NOTIFY; the four hints of a file's lifetime, kept in its inode."""

MAP_SHARED_ANONYMOUS, MAP_KIND, MAP_HUGETLB = 0x21, 0x2F, 0x40000
"""Shared anonymous memory persists when a process no longer maps it, and the pool of huge pages belongs to the machine:
neither is counted for a process."""

SIGCHLD, SOL_SOCKET = 17, 1
BUFFER_SIZES = (7, 8)
"""SO_SNDBUF, SO_RCVBUF: kernel memory that each socket may hold."""

LOAD, EQUAL, SET, AT_LEAST, MASK, RETURN = 0x20, 0x15, 0x45, 0x35, 0x54, 0x06
ALLOW, ERROR, KILL = 0x7FFF0000, 0x00050000, 0x80000000
NUMBER, ARCHITECTURE, FIRST, SECOND, SECOND_HIGH, THIRD, FOURTH = 0, 4, 16, 24, 28, 32, 40
"""Offsets into the kernel's ``seccomp_data``: call number, architecture, low halves of the arguments, and the high half
of the second."""

X32 = 0x40000000
"""x86-64 has a second set of call numbers with this bit set."""

Step = tuple[int, int, str, str]
"""Instruction, operand, and the jump labels if it is true and if not; "" is the next instruction."""


@functools.cache
def program(machine: str | None = None, *, file_times: bool = False) -> bytes:
    """Filter for ``machine`` (default: this one); ``KeyError`` for one that is not in ``ARCHITECTURES``.

    ``file_times`` permits setting file times, for sandboxes whose device nodes are mounted read-only.
    """
    audit, column = ARCHITECTURES[machine or platform.machine()]
    steps: list[Step] = [
        (LOAD, ARCHITECTURE, "", ""),
        (EQUAL, audit, "", "kill"),
        (LOAD, NUMBER, "", ""),
        (AT_LEAST, X32, "kill", ""),
        (AT_LEAST, NEWER, "absent", ""),
    ]
    checked = {
        MMAP: "mmap", FCNTL: "fcntl", IOCTL: "ioctl", SIGACTION: "sigaction", CLONE: "clone", SOCKET: "socket",
        SOCKETPAIR: "socket", SETSOCKOPT: "setsockopt", FLOCK: "granted",
    }  # fmt: skip
    steps += [(EQUAL, numbers[column], label, "") for numbers, label in checked.items()]
    listed = {"forbidden": NUMBERS, "absent": ABSENT, "granted": {} if file_times else FILE_TIMES}
    steps += [
        (EQUAL, row[column], label, "")
        for label, rows in listed.items()
        for row in rows.values()
        if row[column] != NONE
    ]
    return _assemble([*steps, (RETURN, ALLOW, "", "")], _blocks())


def _blocks() -> dict[str, list[Step]]:
    """Blocks that check arguments, and the results. A block comes after all jumps to its label."""
    return {
        "mmap": [
            (LOAD, FOURTH, "", ""),
            (SET, MAP_HUGETLB, "forbidden", ""),
            (MASK, MAP_KIND, "", ""),
            (EQUAL, MAP_SHARED_ANONYMOUS, "forbidden", "allow"),
        ],
        "fcntl": [
            (LOAD, SECOND, "", ""),
            *((EQUAL, command, "granted", "") for command in LOCKS),
            *((EQUAL, command, "forbidden", "") for command in SHARED_STATE),
            (RETURN, ALLOW, "", ""),
        ],
        "ioctl": [
            (LOAD, SECOND, "", ""),
            *((EQUAL, request, "forbidden", "") for request in REQUESTS),
            (RETURN, ALLOW, "", ""),
        ],
        # A null address only queries; the low half alone may be zero in a valid address.
        "sigaction": [
            (LOAD, FIRST, "", ""),
            (EQUAL, SIGCHLD, "", "allow"),
            (LOAD, SECOND, "", ""),
            (EQUAL, 0, "", "granted"),
            (LOAD, SECOND_HIGH, "", ""),
            (EQUAL, 0, "allow", "granted"),
        ],
        "clone": [(LOAD, FIRST, "", ""), (SET, NAMESPACE_FLAGS, "forbidden", "allow")],
        "socket": [(LOAD, FIRST, "", ""), (EQUAL, AF_UNIX, "allow", "family")],
        "setsockopt": [
            (LOAD, SECOND, "", ""),
            (EQUAL, SOL_SOCKET, "", "allow"),
            (LOAD, THIRD, "", ""),
            *((EQUAL, option, "granted", "") for option in BUFFER_SIZES),
            (RETURN, ALLOW, "", ""),
        ],
        "allow": [(RETURN, ALLOW, "", "")],
        "granted": [(RETURN, ERROR, "", "")],
        "forbidden": [(RETURN, ERROR | errno.EPERM, "", "")],
        "absent": [(RETURN, ERROR | errno.ENOSYS, "", "")],
        "family": [(RETURN, ERROR | errno.EAFNOSUPPORT, "", "")],
        "kill": [(RETURN, KILL, "", "")],
    }


def _assemble(steps: list[Step], blocks: dict[str, list[Step]]) -> bytes:
    """Append the blocks and replace labels by jump distances, one byte each in the kernel's format."""
    positions = {}
    for label, block in blocks.items():
        positions[label] = len(steps)
        steps = steps + block
    packed = b""
    for index, (code, operand, if_true, if_false) in enumerate(steps):
        jumps = [positions[label] - index - 1 if label else 0 for label in (if_true, if_false)]
        packed += struct.pack("=HBBI", code, *jumps, operand)
    return packed
