"""Whom the embedded server runs as, and what that user may reach.

PostgreSQL refuses to run as root. Where root runs Mailroom, as in many containers, the server runs
as `nobody`, with one capability where the folders on its way are closed to that user.
"""

import contextlib
import ctypes
import os
import pwd
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.database.embedded.programs import EmbeddedPostgresError, environment

# From linux/capability.h and linux/prctl.h.
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
# CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID, SETUID and SETPCAP: what root needs to run a server as
# another user. Containers have them unless somebody took them away.
ROOT_CAPABILITIES = sum(1 << number for number in (0, CAP_DAC_OVERRIDE, 3, 5, 6, 7, 8))
CAPABILITY_VERSION_3 = 0x20080522
PR_GET_SECUREBITS = 27
PR_SET_SECUREBITS = 28
SECBIT_NO_SETUID_FIXUP = 1 << 2
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2


def server_owner(data: Path) -> tuple[int, int]:
    """User and group that the server runs as: ours, or another one if we are root."""
    try:
        found = data.stat()
    except FileNotFoundError:
        found = None
    if os.geteuid() != 0:
        if found is not None and found.st_uid != os.geteuid():
            raise EmbeddedPostgresError(
                f"{data} belongs to another user (uid {found.st_uid}): run Mailroom as "
                "that user, or set MAILROOM_HOME to a folder of your own"
            )
        return os.geteuid(), os.getegid()
    if found is not None:
        if found.st_uid == 0:
            raise EmbeddedPostgresError(
                f"{data} belongs to root, and PostgreSQL refuses to run as root: "
                f"run `chown -R nobody {data}`"
            )
        return found.st_uid, found.st_gid
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedPostgresError(
            "PostgreSQL refuses to run as root, and this system has no user `nobody` to run "
            "it as: run Mailroom as an ordinary user, or set DATABASE_URL"
        ) from None
    return nobody.pw_uid, nobody.pw_gid


def child_options(
    binaries: Path, home: Path, socket_parent: Path, uid: int, gid: int
) -> dict[str, Any]:
    """Arguments for `Popen` that run a server program as its user and with nothing of ours."""
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "cwd": "/", "env": environment()}
    if os.geteuid() != 0:
        return options
    held = _held_capabilities()
    if sys.platform == "linux" and ROOT_CAPABILITIES & ~held:
        raise EmbeddedPostgresError(
            "PostgreSQL refuses to run as root, and this root may not run it as another user: "
            "run Mailroom as an ordinary user, or set DATABASE_URL"
        )
    may_run = _permits(binaries / "postgres", uid, gid)
    folders = (home, socket_parent, binaries)
    if may_run and all(_permits(p, uid, gid) for f in folders for p in (f, *f.parents)):
        return {**options, "user": uid, "group": gid, "extra_groups": []}
    if not held:
        raise EmbeddedPostgresError(
            f"PostgreSQL refuses to run as root, and user {uid} cannot reach {home} or "
            f"{binaries}: run Mailroom as an ordinary user, or set DATABASE_URL"
        )
    # The smaller right opens folders, but does not run programs.
    may_search = may_run and held >> CAP_DAC_READ_SEARCH & 1
    capability = CAP_DAC_READ_SEARCH if may_search else CAP_DAC_OVERRIDE
    return {**options, "preexec_fn": _becoming(uid, gid, capability)}


def make_private(folder: Path, uid: int, gid: int, also: int) -> None:
    """Make a folder that only `uid` can use. One that belongs to neither user is refused."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    refusal = EmbeddedPostgresError(
        f"{folder} is not ours, and its owner could pretend to be the database: delete it, or set "
        "MAILROOM_HOME to a folder of your own with a shorter path"
    )
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except (NotADirectoryError, PermissionError):
        raise refusal from None
    try:
        if os.fstat(descriptor).st_uid not in (uid, also):
            raise refusal
        if os.geteuid() == 0:
            os.fchown(descriptor, uid, gid)
        os.fchmod(descriptor, stat.S_IRWXU)
    finally:
        os.close(descriptor)


def _permits(path: Path, uid: int, gid: int) -> bool:
    """Whether the mode of `path` lets a user without privileges pass the folder or run the file."""
    found = path.stat()
    if found.st_uid == uid:
        return bool(found.st_mode & stat.S_IXUSR)
    if found.st_gid == gid:
        return bool(found.st_mode & stat.S_IXGRP)
    return bool(found.st_mode & stat.S_IXOTH)


def _held_capabilities() -> int:
    """The bit set of what this process may pass on; empty where the system has no such thing."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)


def _becoming(uid: int, gid: int, capability: int) -> Callable[[], None]:
    """A function that turns a child of root into another user that keeps one capability."""
    # Everything is prepared here, because little is safe between fork and exec.
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    mask = 1 << capability
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    # Effective, permitted and inheritable, first for capabilities 0 to 31 and then for the rest.
    sets = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)

    def check(result: int) -> None:
        if result != 0:
            raise OSError(ctypes.get_errno(), "cannot keep a capability")

    def become() -> None:
        os.setgroups([])
        os.setgid(gid)
        # Without this bit access(2), by which PostgreSQL looks for its programs, would not heed
        # capabilities. It also makes them outlive the change of the user.
        bits = libc.prctl(PR_GET_SECUREBITS, 0, 0, 0, 0)
        check(libc.prctl(PR_SET_SECUREBITS, bits | SECBIT_NO_SETUID_FIXUP, 0, 0, 0))
        os.setuid(uid)
        check(libc.capset(header, sets))
        check(libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0))

    return become
