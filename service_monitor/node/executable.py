"""Find the file that COMMAND names, and say why it cannot be executed.

So a mistake is found before the command waits for its turn, and told in more words than
the kernel has: to it a script whose interpreter is missing is "No such file". Codes are
those of a shell: 127 for what is not there, 126 for what is and cannot be executed. In
doubt a file passes: the kernel has the last word when the command is started.
"""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

from service_monitor.errors import CannotStart

MISSING, REFUSED = 127, 126
"""Exit codes, as a shell has them, for a command that cannot be started."""

_NOT_EXECUTABLE = (
    "is not executable for this user: chmod +x it; or its file system is mounted noexec"
)
_SCRIPT_HEAD = 256
"""Bytes of a script in which the kernel looks for its interpreter."""
_DEEPEST = 4
"""How many interpreters may be scripts themselves, each run by the next."""
_HANDLERS = Path("/proc/sys/fs/binfmt_misc")
_PT_INTERP = 3
_ELF = b"\x7fELF"
_RELATIVES = {(62, 3), (183, 40)}
"""Machines that execute programs of another: x86-64 those of i386, aarch64 of ARM."""


def find(name: str) -> str:
    """Return the path that `name` means, as a shell finds it.

    Raises `CannotStart`. Reads the beginning of the file, which a dead disk holds up.
    """
    if "/" in name:
        _check_file(name, name)
        path = name
    else:
        path = _search(name)
    _check_format(name, path)
    return path


def _search(name: str) -> str:
    """Look for the name in PATH; what is there but not executable is passed over."""
    refused = None
    for directory in os.get_exec_path() if name else ():
        path = os.path.join(directory or ".", name)
        if not os.path.isfile(path):
            continue
        if _may_execute(path):
            return path
        refused = refused or path
    if refused:
        raise CannotStart(name, f"{refused!r} {_NOT_EXECUTABLE}", REFUSED)
    if not name:
        raise CannotStart(name, "the name is empty; is a variable not set?", MISSING)
    why = "there is no such program in PATH; give its path, or set PATH"
    raise CannotStart(name, why, MISSING)


def _check_file(name: str, path: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        why = "there is no such file"
        if os.path.islink(path):
            why = f"it is a link to {os.readlink(path)!r}, which is not there"
        elif not os.path.isabs(path):
            why += " from the working directory on; an absolute path is safer"
        raise CannotStart(name, why, MISSING) from None
    except OSError as error:
        raise CannotStart(name, str(error.strerror), REFUSED) from error
    if stat.S_ISDIR(mode):
        raise CannotStart(name, "it is a directory, not a program", REFUSED)
    if not stat.S_ISREG(mode):
        raise CannotStart(name, "it is not a regular file", REFUSED)
    if not _may_execute(path):
        raise CannotStart(name, f"it {_NOT_EXECUTABLE}", REFUSED)


def _may_execute(path: str) -> bool:
    return os.access(path, os.X_OK, effective_ids=True)


def _check_format(name: str, path: str, depth: int = 0) -> None:
    try:
        with open(path, "rb") as file:
            head = file.read(_SCRIPT_HEAD)
        if head.startswith(_ELF):
            _check_program(name, path)
            return
    except OSError:
        return  # it may be executed, but not read
    if head.startswith(b"#!"):
        _check_script(name, path, head, depth)
    elif not _other_handlers():
        what = repr(path) if depth or path != name else "it"
        why = f"{what} is neither a program nor a script that begins with #!"
        if not head:
            why = f"{what} is an empty file"
        elif head.startswith(b"\xef\xbb\xbf#!"):
            why = f"{what} begins with a byte order mark, not with #!: save it without"
        raise CannotStart(name, f"{why} (exec format error)", REFUSED)


def _check_script(name: str, path: str, head: bytes, depth: int) -> None:
    line, newline, _ = head.removeprefix(b"#!").partition(b"\n")
    line = line.partition(b"\0")[0]  # where the kernel's text ends
    words = os.fsdecode(line).strip(" \t").replace("\t", " ").split(" ", 1)
    interpreter, rest = words[0], words[-1].strip(" ") if words[1:] else ""
    cut_off = not newline and len(head) == _SCRIPT_HEAD and not words[1:]
    if not interpreter or cut_off:
        why = "the first line of it names no interpreter, or too long a one"
        raise CannotStart(name, f"{why} (exec format error)", REFUSED)
    if depth == _DEEPEST:
        raise CannotStart(name, "its interpreter is a script of scripts", REFUSED)
    try:
        _check_file(interpreter, interpreter)
        _check_format(interpreter, interpreter, depth + 1)
        if os.path.basename(interpreter) == "env" and (wanted := _asked_of_env(rest)):
            interpreter = wanted
            find(wanted)
    except CannotStart as error:
        where = "its first line" if path == name else f"the first line of {path!r}"
        why = f"{where} asks for {interpreter!r}: {error.why}"
        if interpreter.endswith("\r"):
            why = (
                f"{where} ends in CR, so it asks for {interpreter!r}, "
                "which is not there: save the file with the line ends of Unix (LF)"
            )
        raise CannotStart(name, why, error.exit_code) from None


def _asked_of_env(rest: str) -> str | None:
    """Return the program that `#!/usr/bin/env ...` looks for, where that is plain."""
    if rest.startswith("-S"):
        words = rest.removeprefix("-S").split(" ")
        rest = next((word for word in words if word and "=" not in word), "")
    plain = rest and not rest.startswith("-") and not set(rest) & set("='\"\\$ ")
    return rest if plain else None


def _check_program(name: str, path: str) -> None:
    """Look at an ELF file as the kernel does before it lets go of the caller."""
    try:
        ours = _header("/proc/self/exe")
    except (struct.error, ValueError):
        return  # nothing to compare with
    try:
        theirs = _header(path)
        kind, _, _, machine, interpreter = theirs
    except (struct.error, ValueError):
        why = "it is no whole program (exec format error): copy or build it again"
        raise CannotStart(name, why, REFUSED) from None
    foreign = theirs[1:4] != ours[1:4] and (ours[3], machine) not in _RELATIVES
    if kind not in (2, 3):  # ET_EXEC, ET_DYN
        why = "it is an object file or a core dump, no program (exec format error)"
        raise CannotStart(name, why, REFUSED)
    if foreign:
        # An emulator may be set up; in a container only the kernel knows of it.
        if (_HANDLERS / "status").exists() and not _other_handlers():
            why = "it was built for another kind of machine (exec format error)"
            raise CannotStart(name, why, REFUSED)
    elif interpreter and not os.path.exists(interpreter):
        why = (
            f"its loader {interpreter!r} is not there: it was built for another "
            "system or C library"
        )
        raise CannotStart(name, why, MISSING)


def _header(path: str) -> tuple[int, int, int, int, str]:
    """Read of an ELF file its type, class, byte order, machine and loader."""
    with open(path, "rb") as file:
        head = file.read(64)
        wide, order = head[4], head[5]
        if wide not in (1, 2) or order not in (1, 2):
            raise ValueError("no ELF class or byte order")
        ends = "<" if order == 1 else ">"
        kind, machine = struct.unpack_from(f"{ends}HH", head, 16)
        place, at = ("Q", 32) if wide == 2 else ("I", 28)
        (table,) = struct.unpack_from(ends + place, head, at)
        size, count = struct.unpack_from(f"{ends}HH", head, 54 if wide == 2 else 42)
        file.seek(table)
        if size != (56 if wide == 2 else 32) or not count:
            raise ValueError("no program headers")
        entries = file.read(size * count)
        if len(entries) < size * count:
            raise ValueError("no whole program headers")
        loader = ""
        for entry in range(0, size * count, size):
            if struct.unpack_from(f"{ends}I", entries, entry)[0] == _PT_INTERP:
                words = f"{ends}8xQ16xQ" if wide == 2 else f"{ends}4xI8xI"
                where, length = struct.unpack_from(words, entries, entry)
                file.seek(where)
                loader = os.fsdecode(file.read(min(length, 4096)).rstrip(b"\0"))
    return kind, wide, order, machine, loader


def _other_handlers() -> bool:
    """Tell whether the kernel was told of more formats, as wine's or qemu's."""
    try:
        return bool({*os.listdir(_HANDLERS)} - {"register", "status"})
    except OSError:
        return False
