"""What pip installs: under a name of our own, with the program and the import's."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

from integration.support.commands import Run
from integration.support.documents import PAGES
from service_monitor import DISTRIBUTION

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OURS = [*PAGES, *(ROOT / "service_monitor").rglob("*.py"), ROOT / "pyproject.toml"]


def test_the_distribution_is_not_somebody_elses() -> None:
    """`pip install` would fetch another project, and run its code as root."""
    assert PROJECT["name"] == DISTRIBUTION
    assert DISTRIBUTION not in ("service-monitor", "service_monitor")
    assert PROJECT["scripts"] == {"service-monitor": "service_monitor.__main__:main"}


def test_only_our_distribution_is_named_to_pip() -> None:
    """A copied line would install what nobody here has written."""
    for page in OURS:
        text = page.read_text()
        assert not re.search(r"service[_-]monitor\[", text), page.name
        for name in re.findall(r"pip install (?:-\S+ )*'?(service[\w-]*)", text):
            assert name == DISTRIBUTION, page.name


def test_the_version_is_that_of_the_distribution(run: Run) -> None:
    """--version would end in a traceback, or tell of somebody else's project."""
    version = metadata.version(DISTRIBUTION)
    assert version == PROJECT["version"]
    assert run("--version").out == f"service-monitor, version {version}\n"
