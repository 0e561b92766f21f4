"""Make sure that the images which the integration tests need are there.

A tag that is neither present nor can be pulled (a machine without a registry) is built
with debootstrap from Debian's packages, under the same tag, and said so on stderr.
`python -m integration.images` does it for all of them and builds the project's own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PYTHON_IMAGE = "python:3.13-slim"
# The version that Debian trixie ships, so that the stand-in serves the same release.
ETCD_IMAGE = "quay.io/coreos/etcd:v3.5.16"
PROJECT_IMAGE = "service_monitor"
PULL_SILENCE = 20.0  # seconds without any word from the registry before giving up
STEP_TIMEOUT = 600.0  # seconds for one command that does make progress
ROOT = Path(__file__).resolve().parent.parent


class ImageError(RuntimeError):
    """An image is missing and could not be made; says which command failed."""


@dataclass(frozen=True)
class StandIn:
    """What to install into a bare Debian, and how it then looks like the original."""

    packages: tuple[str, ...]
    links: dict[str, str]  # below /usr/local/bin, where the original has its programs
    changes: tuple[str, ...]


_PATH = "ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
STAND_INS = {
    PYTHON_IMAGE: StandIn(
        ("ca-certificates", "python3", "python3-pip", "python3-venv"),
        {"python": "python3", "python3": "python3", "pip": "pip3", "pip3": "pip3"},
        (_PATH, "ENV LANG=C.UTF-8", 'CMD ["python3"]'),
    ),
    ETCD_IMAGE: StandIn(
        ("etcd-server", "etcd-client"),
        {"etcd": "etcd", "etcdctl": "etcdctl", "etcdutl": "etcdutl"},
        (_PATH, "EXPOSE 2379 2380", 'CMD ["/usr/local/bin/etcd"]'),
    ),
}


def ensure(tag: str) -> str:
    """Return `tag` once an image of that name is on this Docker engine.

    Blocks while another process makes one. Raises ImageError.
    """
    with _one_at_a_time():
        if not present(tag) and (refusal := pull(tag)):
            if tag not in STAND_INS:
                raise ImageError(f"cannot pull {tag}: {refusal}")
            _say(f"cannot pull {tag} ({refusal}); building a stand-in from Debian")
            _debootstrap(tag, STAND_INS[tag])
            _say(f"{tag} is now a stand-in made of Debian trixie's packages")
    return tag


def present(tag: str) -> bool:
    """Tell whether the engine has this image."""
    command = ("docker", "image", "inspect", tag)
    return subprocess.run(command, capture_output=True).returncode == 0


def pull(tag: str) -> str | None:
    """Pull an image; return None, or in one line why not."""
    try:
        _run("docker", "pull", tag, silence=PULL_SILENCE)
    except ImageError as error:
        return str(error).splitlines()[-1]
    return None


def build_project() -> str:
    """Build the project's own image from this checkout and return its tag."""
    ensure(PYTHON_IMAGE)
    with _one_at_a_time():
        _run("docker", "build", "--force-rm", "--tag", PROJECT_IMAGE, str(ROOT))
    return PROJECT_IMAGE


def build_machine(stage: str) -> str:
    """Build an image with systemd, a stage of systemd/Dockerfile; return its tag."""
    build_project()
    tag, where = f"{PROJECT_IMAGE}-{stage}", str(ROOT / "integration/systemd")
    with _one_at_a_time():
        _run("docker", "build", "--force-rm", "--target", stage, "--tag", tag, where)
    return tag


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Lock out other processes: on the directory itself, so no lock file stays."""
    directory = os.open(tempfile.gettempdir(), os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _debootstrap(tag: str, recipe: StandIn) -> None:
    if os.geteuid() != 0:
        raise ImageError(f"run `docker pull {tag}`, or build the stand-in as root")
    if not shutil.which("debootstrap"):
        _run("apt-get", "update")
        _run("apt-get", "install", "-y", "debootstrap", "debian-archive-keyring")
    with tempfile.TemporaryDirectory(prefix="service-monitor-image-") as directory:
        root = Path(directory, "root")
        # Its own mount namespace: whatever happens, nothing stays mounted in there
        # which the removal of the directory could reach.
        _run(
            *("unshare", "--mount", "debootstrap", "--variant=minbase"),
            *("--include=" + ",".join(recipe.packages), "trixie", str(root)),
        )
        for name, program in recipe.links.items():
            (root / "usr/local/bin" / name).symlink_to(f"/usr/bin/{program}")
        _adopt_host_settings(root)
        # The original has neither of these, so tests here meet the same conditions.
        for path in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
            path.unlink()
        for path in [*root.glob("usr/lib/python3*/**/__pycache__")]:
            shutil.rmtree(path)
        tarball = Path(directory, "root.tar")
        ballast = (
            "var/cache",
            "var/lib/apt/lists",
            "usr/share/doc",
            "usr/share/locale",
        )
        excludes = (f"--exclude=./{path}/*" for path in ballast)
        _run("tar", "-C", str(root), *excludes, "-cf", str(tarball), ".")
        changes = (f"--change={line}" for line in recipe.changes)
        _run("docker", "import", *changes, str(tarball), tag)


def _adopt_host_settings(root: Path) -> None:
    """Let `pip install` work inside as it does here: same CA bundle, index, proxy."""
    paths = ssl.get_default_verify_paths()
    bundle = os.environ.get("PIP_CERT") or paths.cafile or paths.openssl_cafile
    inside = Path("etc/ssl/certs/ca-certificates.crt")
    (root / inside).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(bundle, root / inside)
    settings = {"cert": f"/{inside}"}
    wanted = ("index-url", "extra-index-url", "trusted-host", "proxy")
    listing = _run(sys.executable, "-m", "pip", "config", "list")
    for line in listing.splitlines():  # such as: global.index-url='https://...'
        key, _, value = line.partition("=")
        if (name := key.rpartition(".")[2]) in wanted:
            settings[name] = value.strip("'\"").replace("\\n", "\n ")
    lines = (f"{name} = {value}\n" for name, value in settings.items())
    (root / "etc/pip.conf").write_text("[global]\n" + "".join(lines))


def _run(*command: str, silence: float | None = None) -> str:
    """Run a command, give back its output; on any other end leave no process behind.

    `silence` bounds the seconds until its first output. Raises ImageError.
    """
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout
        try:
            if silence and not select.select([process.stdout], [], [], silence)[0]:
                raise subprocess.TimeoutExpired(command, silence)
            output, _ = process.communicate(timeout=STEP_TIMEOUT)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()  # ends when the last of its children has died
            if isinstance(error, subprocess.TimeoutExpired):
                raise ImageError(f"no end within {error.timeout:g} s") from error
            raise
    if process.returncode != 0:
        tail = "\n".join(output.splitlines()[-15:])
        raise ImageError(f"`{shlex.join(command)}` failed:\n{tail}")
    return output


def _say(message: str) -> None:
    print(f"images: {message}", file=sys.stderr, flush=True)


def main() -> int:
    """Make all images; return 0, or 1 after saying what failed."""
    for number in signal.SIGTERM, signal.SIGINT:  # by `... &` that is ignored
        signal.signal(number, signal.default_int_handler)  # clean up, as on Ctrl-C
    try:
        _run("docker", "version")  # without an engine, say so and do nothing
        for tag in (ensure(PYTHON_IMAGE), ensure(ETCD_IMAGE), build_project()):
            print(tag)
    except (ImageError, OSError) as error:
        _say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
