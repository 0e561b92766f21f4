"""Where the version comes from: the git tag, wherever git can tell it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
UNKNOWN = PROJECT["tool"]["setuptools_scm"]["fallback_version"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
# What pip and build call of the build backend; its last line is what was made.
METADATA, SDIST = "prepare_metadata_for_build_wheel", "build_sdist"
CALL = "import sys, setuptools.build_meta as b; print(getattr(b, sys.argv[1])('made'))"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Give a copy of what the distribution is built of, without its git history."""
    folder = tmp_path / "source"
    for name in ("pyproject.toml", "README.md", "LICENSE", "service_monitor"):
        found = ROOT / name
        for path in [found, *found.glob("**/*.py")]:
            if path.is_file():
                copy = folder / path.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, copy)
    return folder


def start(
    folder: Path, *command: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, with none of the variables that git hooks set."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    return subprocess.run(
        command,
        cwd=folder,
        env={**inherited, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


def run(folder: Path, *command: str, **variables: str) -> str:
    done = start(folder, *command, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout


def make(folder: Path, what: str, **variables: str) -> Path:
    shutil.rmtree(folder / "made", ignore_errors=True)
    (folder / "made").mkdir()
    lines = run(folder, sys.executable, "-c", CALL, what, **variables).splitlines()
    return folder / "made" / lines[-1]


def version(folder: Path, **variables: str) -> str:
    """Ask as pip does before it installs, also with `pip install -e`."""
    text = (make(folder, METADATA, **variables) / "METADATA").read_text()
    (found,) = re.findall("^Version: (.+)$", text, re.MULTILINE)
    return str(found)


def commit(folder: Path) -> str:
    """Make a clone of one commit; return how its name begins."""
    name = ("-c", "user.name=a", "-c", "user.email=a@b.example")
    (folder / ".gitignore").write_text("/made/\n*.egg-info/\n/build/\n")
    run(folder, "git", "init", "-q")
    run(folder, "git", "add", ".")
    run(folder, "git", *name, "commit", "-q", "-m", "Begin")
    return run(folder, "git", "rev-parse", "--short=7", "HEAD").strip()


def test_a_tag_is_the_version_also_in_an_sdist(source: Path, tmp_path: Path) -> None:
    """A release would carry another number than its tag."""
    commit(source)
    run(source, "git", "tag", "v1.2.3")
    assert version(source) == "1.2.3"
    with tarfile.open(make(source, SDIST)) as sdist:
        sdist.extractall(tmp_path / "sdist", filter="data")
    assert version(tmp_path / "sdist/service_monitor_lease-1.2.3") == "1.2.3"


def test_a_clone_without_a_tag_names_its_commit(source: Path) -> None:
    """The README's first line would fail in a fork; or nobody could tell what runs."""
    begin = commit(source)
    assert re.fullmatch(rf"0\.0\.0\.dev\d+\+g{begin}\w*", version(source))


def test_without_git_the_version_is_unknown(source: Path) -> None:
    """An unpacked archive or a machine without git could not install it at all."""
    assert version(source) == UNKNOWN
    commit(source)
    assert version(source, PATH="/nowhere") == UNKNOWN


def test_an_image_has_the_version_that_its_build_was_told(source: Path) -> None:
    """--version in an image would name no release also where it is one."""
    (variable,) = re.findall(r'(SETUPTOOLS_SCM_\w+)="\$VERSION"', DOCKERFILE)
    assert version(source, **{variable: "1.2.3"}) == "1.2.3"
    assert f"\nARG VERSION={UNKNOWN}\n" in DOCKERFILE
    assert version(source, **{variable: UNKNOWN}) == UNKNOWN


def test_the_image_s_build_tools_are_those_of_the_project() -> None:
    """`docker build` would fail, or take a tool that is not locked by its hash."""
    lock = (ROOT / "requirements-build.lock").read_text()
    needed = {re.split("[>=]", need)[0] for need in PROJECT["build-system"]["requires"]}
    assert needed <= set(re.findall("^([a-z-]+)==", lock, re.MULTILINE))
    for need in PROJECT["build-system"]["requires"]:
        assert need in lock, "renew it by the command in its first lines"


@pytest.mark.parametrize(
    ("tag", "agrees"),
    [("v1.2.3", True), ("v1.2.4", False), ("v1.2.3rc1", False), ("v0.9", False)],
)
def test_a_release_is_published_only_where_all_name_one_version(
    tmp_path: Path, tag: str, agrees: bool
) -> None:
    """A wheel or an image would be published under another version's name."""
    release = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
    jobs = release["jobs"]
    (check,) = (step["run"] for step in jobs["agree"]["steps"] if "run" in step)
    (tmp_path / "dist").mkdir()
    for ending in ("-py3-none-any.whl", ".tar.gz"):
        (tmp_path / f"dist/service_monitor_lease-1.2.3{ending}").touch()
    heads = "".join(f"## [{v}] - 2026-01-01\n" for v in ("1.2.4", "1.2.3", "0.9"))
    (tmp_path / "CHANGELOG.md").write_text(f"## [Unreleased]\n\n{heads}")
    done = start(tmp_path, "bash", "-e", "-c", check, TAG=tag)
    assert (done.returncode == 0) is agrees
    others = jobs.keys() - {"test", "agree"}
    assert {jobs[name]["needs"] for name in others} == {"agree"}
    (tmp_path / "CHANGELOG.md").write_text("## [Unreleased]\n")
    assert start(tmp_path, "bash", "-e", "-c", check, TAG="v1.2.3").returncode != 0
