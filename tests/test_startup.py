"""A start that fails, and a fault that nobody foresaw: never exit code 1."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
import pytest

from integration.support.commands import (
    Outcome,
    by_python,
    by_shell,
    ended,
    environment,
)
from service_monitor.cli import startup

TRACEBACK = "Traceback"
HOSTS = ["hosts", "--label=es"]
ACQUIRE = ["acquire-lease", "--label=es", "--service-id=es-1"]


def run(path: Path, *argv: str, shell: str = '"$@"', **env: str) -> Outcome:
    """Run a command from elsewhere, so that what is found is what is installed."""
    cli = by_shell(f"exec {shell}")
    return ended(argv, environment(path, **env), cli=cli, cwd=path.parent)


@pytest.mark.parametrize(
    ("module", "text", "said"),
    [
        (
            "requests",
            "import nowhere",
            "ModuleNotFoundError: No module named",
        ),
        ("click", "x = (", "SyntaxError: '(' was never closed"),
        ("click", "", "'click' is not a package"),
        ("urllib3", "1 / 0", "ZeroDivisionError: division by zero"),
        ("signal", "raise OSError('s')", "OSError: s"),
        ("signal", "", "AttributeError: "),
        ("threading", "raise SystemExit(0)", "SystemExit: 0"),
        ("json", "raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("random", "raise SystemExit", "SystemExit: "),
    ],
)
def test_a_module_in_the_way_is_no_answer(
    path: Path, tmp_path: Path, module: str, text: str, said: str
) -> None:
    """The start script would take exit 1 for "not acquired", or 0 for "acquired"."""
    (tmp_path / f"{module}.py").write_text(text)
    argv = [*ACQUIRE, "--acquire-timeout=1s"]
    if module in ("requests", "urllib3"):
        argv += ["--store=etcd://127.0.0.1:1"]
    code, out, err = run(path, *argv, PYTHONPATH=str(tmp_path))
    assert (code, out) == (70, "")
    (line,) = err.splitlines()
    assert line.startswith("service-monitor: cannot start: ")
    assert said in line
    assert f"is something in PYTHONPATH={tmp_path} in the way?" in line
    assert not path.exists()


def test_a_broken_sitecustomize_is_survived(path: Path, tmp_path: Path) -> None:
    """Python complains and goes on, and so has the command to."""
    (tmp_path / "sitecustomize.py").write_text("import nowhere")
    code, out, err = run(path, *HOSTS, PYTHONPATH=str(tmp_path))
    assert (code, out) == (0, "\n")
    assert "service-monitor" not in err


def test_a_broken_installation_is_named(path: Path, tmp_path: Path) -> None:
    """Without PYTHONPATH an operator would look for one."""
    (tmp_path / "click.py").write_text("")
    code, _, err = run(path, *HOSTS)  # from the working directory
    assert code == 70
    assert "is the installation whole? Install it anew" in err
    assert TRACEBACK not in err


FAULT = """
import sys
from service_monitor.cli import app as cli
from service_monitor import __main__
def fail(**_):
    raise RuntimeError("nobody thought of it")
cli.cli.main = fail
sys.argv = ["service-monitor", "acquire-lease", "--label=es"]
__main__.main()
"""


def test_a_fault_of_ours_is_no_answer(path: Path) -> None:
    """A mistake in this program would pass for "not acquired", or be lost."""
    code, out, err = ended((), environment(path), cli=by_python(FAULT))
    assert (code, out) == (70, "")
    assert "RuntimeError: nobody thought of it\n" in err
    line = err.splitlines()[-1]
    assert line.startswith("service-monitor: a fault of ours: RuntimeError in <string>")


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (HOSTS, 74),
        (ACQUIRE, 0),
        (["hosts"], 2),
        ([], 2),
        (["--version"], 74),
        (["hosts", "--help"], 74),
    ],
    ids=["hosts", "acquire-lease", "usage", "nothing", "--version", "--help"],
)
def test_closed_streams_change_no_exit_code(
    path: Path, argv: list[str], code: int
) -> None:
    """A daemon without them would take the end of the start for "not acquired"."""
    assert run(path, *argv, shell='"$@" <&- >&- 2>&-').code == code
    shut = '"$@" <&- 2>&-' if code != 74 else '"$@" <&- 2>/dev/full'
    assert run(path, *argv, shell=shut).code == (0 if code == 74 else code)
    if code == 2:
        assert run(path, *argv, shell='"$@" 2>/dev/full').code == 2


@pytest.mark.parametrize("streams", ["2>&-", "2>/dev/full", "<&- >&- 2>&-"])
def test_a_start_that_fails_unheard_has_its_code(
    path: Path, tmp_path: Path, streams: str
) -> None:
    """With nowhere to say it, the exit code is all that is left."""
    (tmp_path / "click.py").write_text("")
    shell = f'"$@" {streams}'
    assert run(path, *HOSTS, shell=shell, PYTHONPATH=str(tmp_path)).code == 70


@pytest.mark.parametrize("text", ["raise SystemExit(0)", "", "import nowhere"])
def test_not_even_the_first_import_is_an_answer(
    path: Path, tmp_path: Path, text: str
) -> None:
    """A file called __future__.py would make "acquired" or "not acquired" of it."""
    (tmp_path / "__future__.py").write_text(text)
    installed = tmp_path / "installed"  # Python itself would stumble in an editable one
    installed.mkdir()
    (installed / "service_monitor").symlink_to(Path(startup.__file__).parents[1])
    libraries = str(Path(click.__file__).parents[1])
    lines = f"import sys; sys.path += [{str(installed)!r}, {libraries!r}]"
    lines += "; from service_monitor.__main__ import main; main()"
    env = environment(path, PYTHONPATH=str(tmp_path))
    cli = (sys.executable, "-S", "-c", lines)
    code, out, err = ended(HOSTS, env, cli=cli, cwd=path.parent)
    assert (code, out) == (70, ""), err
    assert "is something in PYTHONPATH=" in err.splitlines()[-1]


def test_the_guard_lets_a_good_end_be() -> None:
    """A command that ends well would have to end otherwise."""
    ran: list[int] = []
    startup.guarded(lambda: ran.append(os.getpid()))()
    assert ran == [os.getpid()]
