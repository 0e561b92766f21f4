"""COMMAND is checked before it queues: what a shell says of it, in more words."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from integration.support.commands import HANG
from service_monitor.errors import CannotStart
from service_monitor.node import executable
from service_monitor.node.executable import find


def script(path: Path, text: str | bytes, mode: int = 0o755) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return str(path)


def refusal(name: str) -> tuple[int, str]:
    with pytest.raises(CannotStart) as caught:
        find(name)
    return caught.value.exit_code, caught.value.why


def of_shell(name: str) -> int:
    """Return the code that a shell has for it."""
    argv = ["bash", "-c", '"$0"', name]
    return subprocess.run(argv, capture_output=True, timeout=HANG).returncode


def elf(**changes: object) -> bytes:
    """Make the beginning of a program for this machine, with one program header."""
    head = bytearray(Path("/proc/self/exe").read_bytes()[:64])
    values = {"type": 2, "machine": struct.unpack_from("<H", head, 18)[0], "loader": ""}
    values |= changes
    struct.pack_into("<HH", head, 16, values["type"], values["machine"])
    struct.pack_into("<Q", head, 32, 64)
    struct.pack_into("<HH", head, 54, 56, 1)
    loader = str(values["loader"]).encode() + b"\0"
    table = struct.pack("<IIQQQQQQ", 3, 4, 120, 0, 0, len(loader), len(loader), 1)
    return bytes(head) + table + loader


CASES: dict[str, tuple[bytes | None, int, str]] = {
    "missing": (None, 127, "there is no such file"),
    "plain": (b"#!/bin/sh\n", 126, "it is not executable for this user: chmod +x it"),
    "lost": (b"#!/nowhere/sh\n", 127, "its first line asks for '/nowhere/sh': there"),
    "crlf": (b"#!/bin/sh\r\nexit\r\n", 127, "its first line ends in CR, so it asks"),
    "env": (b"#!/usr/bin/env nosuch\n", 127, "its first line asks for 'nosuch': there"),
    "env-s": (b"#!/usr/bin/env -S A=1 nosuch -x\n", 127, "its first line asks for 'no"),
    "env-crlf": (
        b"#!/usr/bin/env sh\r\n",
        127,
        "its first line ends in CR, so it asks",
    ),
    "directory": (
        b"#!/tmp\n",
        126,
        "its first line asks for '/tmp': it is a directory",
    ),
    "nul": (b"#!/nowhere\0/sh\n", 127, "its first line asks for '/nowhere': there is"),
    "env-nul": (b"#!/usr/bin/env nosuch\0\n", 127, "its first line asks for 'nosuch'"),
    "data": (b"\0\1\2\3", 126, "it is neither a program nor a script"),
    "broken": (b"\x7fELF\2\1\1junk", 126, "it is no whole program (exec format error)"),
    "object": (elf(type=1), 126, "it is an object file or a core dump, no program"),
    "musl": (elf(loader="/lib/nosuch.so.1"), 127, "its loader '/lib/nosuch.so.1' is "),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_executed_has_the_codes_of_a_shell(
    tmp_path: Path, case: str
) -> None:
    """A supervisor that knows 126 and 127 would take it for something else."""
    content, code, why = CASES[case]
    path = tmp_path / "command"
    if content is not None:
        script(path, content, 0o644 if case == "plain" else 0o755)
    found, said = refusal(str(path))
    assert said.startswith(why)
    assert found == code
    if case != "musl":  # without a segment to load the kernel sees another fault
        assert of_shell(str(path)) == code


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is an empty file (exec format error)"),
        (b"echo no first line\n", "it is neither a program nor a script that begins"),
        (b"\xef\xbb\xbf#!/bin/sh\n", "it begins with a byte order mark, not with #!"),
        (b"#!\n", "the first line of it names no interpreter"),
        (b"#!/" + b"x" * 300 + b"\n", "the first line of it names no interpreter, or"),
    ],
)
def test_what_only_a_shell_would_execute_is_refused(
    tmp_path: Path, content: bytes, why: str
) -> None:
    """The kernel would refuse it after the turn had come: no shell is in between."""
    path = script(tmp_path / "command", content)
    code, said = refusal(path)
    assert said.startswith(why)
    assert code == 126
    with pytest.raises(OSError, match=r"Exec format|No such file"):
        os.posix_spawn(path, [path], os.environ)


def test_what_is_no_file(tmp_path: Path) -> None:
    """It would be a riddle after a wait of minutes."""
    assert refusal(str(tmp_path)) == (126, "it is a directory, not a program")
    assert refusal(f"{tmp_path}/") == (126, "it is a directory, not a program")
    (tmp_path / "link").symlink_to("nowhere")
    why = "it is a link to 'nowhere', which is not there"
    assert refusal(str(tmp_path / "link")) == (127, why)
    (tmp_path / "loop").symlink_to("loop")
    assert refusal(str(tmp_path / "loop"))[0] == 126
    assert refusal(f"{script(tmp_path / 'file', '')}/x") == (126, "Not a directory")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        assert refusal(str(tmp_path / "socket"))[1] == "it is not a regular file"


def test_names_without_a_slash_are_looked_for_in_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program than in a shell would be started, or none."""
    plain, directory = tmp_path / "plain", tmp_path / "directory"
    script(plain / "es", "#!/bin/sh\n", 0o644)
    (directory / "es").mkdir(parents=True)
    good = script(tmp_path / "good" / "es", "#!/bin/sh\n")
    script(tmp_path / "later" / "es", "#!/bin/sh\n")
    monkeypatch.setenv("PATH", f"{plain}:{directory}:{tmp_path}/good:{tmp_path}/later")
    assert find("es") == good
    monkeypatch.setenv("PATH", f"{directory}:/nowhere:{plain}")
    assert refusal("es")[0] == 126
    assert refusal("es")[1].startswith(f"'{plain}/es' is not executable for this user")
    monkeypatch.setenv("PATH", str(directory))
    assert refusal("es")[0] == 127
    assert refusal("es")[1].startswith("there is no such program in PATH")
    assert refusal("")[0] == 127
    assert refusal("")[1].startswith("the name is empty")
    script(tmp_path / "broken" / "es", "#!/nowhere/sh\n")
    monkeypatch.setenv("PATH", f"{tmp_path}/broken:{tmp_path}/good")
    assert refusal("es")[0] == 127
    assert f"first line of '{tmp_path}/broken/es' asks for" in refusal("es")[1]


def test_relative_paths_are_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start script's `./es` would not be found."""
    script(tmp_path / "bin" / "es", "#!/bin/sh\n")
    monkeypatch.chdir(tmp_path)
    assert find("bin/es") == "bin/es"
    assert refusal("./es")[0] == 127
    assert "from the working directory on" in refusal("./es")[1]
    monkeypatch.chdir(tmp_path / "bin")
    monkeypatch.setenv("PATH", "")
    assert find("es") == "./es"


@pytest.mark.parametrize(
    "content",
    [
        "#!/bin/sh\n",
        "#! /bin/sh -e\n",
        "#!\t/usr/bin/env sh",
        "#!/usr/bin/env -S sh -e\n",
        "#!/usr/bin/env -i sh\n",
        "#!/bin/sh -e" + " " * 300 + "\n",
    ],
)
def test_what_can_be_executed_passes(tmp_path: Path, content: str) -> None:
    """A service that starts by hand would be refused."""
    path = script(tmp_path / "command", content)
    assert find(path) == path


def test_programs_pass() -> None:
    """Nothing at all could be started."""
    for program in sys.executable, "/bin/sh", "env":
        assert find(program)
    found = [f.path for f in os.scandir("/usr/bin") if f.is_file()]
    assert [find(path) for path in found if os.access(path, os.X_OK)]


def test_a_script_may_interpret_a_script(tmp_path: Path) -> None:
    """The kernel allows some of that, and a fault in it is told as well."""
    inner = script(tmp_path / "inner", "#!/bin/sh\n")
    assert find(script(tmp_path / "outer", f"#!{inner}\n"))
    script(tmp_path / "inner", "#!/nowhere/sh\n")
    assert refusal(str(tmp_path / "outer")) == (
        127,
        f"its first line asks for '{inner}': its first line asks for '/nowhere/sh': "
        "there is no such file",
    )
    loop = script(tmp_path / "loop", f"#!{tmp_path}/loop\n")
    assert refusal(loop)[0] == 126


def test_a_program_for_another_machine_is_left_to_an_emulator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image for another machine, which the kernel emulates, would never start."""
    handlers = tmp_path / "binfmt_misc"
    monkeypatch.setattr(executable, "_HANDLERS", handlers)
    foreign = script(tmp_path / "foreign", elf(machine=22, loader="/nowhere"))
    assert find(foreign) == foreign  # in a container: who knows?
    handlers.mkdir()
    (handlers / "status").touch()
    (handlers / "register").touch()
    why = "it was built for another kind of machine (exec format error)"
    assert refusal(foreign) == (126, why)
    (handlers / "qemu-s390x").touch()
    assert find(foreign) == foreign
    wasm = script(tmp_path / "wasm", b"\0asm")
    assert find(wasm) == wasm


def test_what_may_not_be_read_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that may be executed and not read, as some are, would be refused."""
    path = script(tmp_path / "command", "no program")
    real = open

    def refuse(name: str, mode: str) -> object:
        if name == path:
            raise PermissionError(name)
        return real(name, mode)

    monkeypatch.setattr(executable, "open", refuse, raising=False)
    assert find(path) == path
    assert shutil.which(path)
