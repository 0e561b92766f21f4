"""The command `watch`, and what it says of its options."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from integration.support.certificates import Certificates
from integration.support.commands import (
    HANG,
    WATCH,
    Outcome,
    Run,
    acquire,
    error_of,
    is_up,
    keys,
    passing,
    registration,
    wait_until,
)
from integration.support.loopback import Serve, answering, hanging, status
from service_monitor.cli.probing import checked_rhythm
from service_monitor.errors import (
    ConfigError,
    LocalLack,
    StoreRefused,
    StoreUnavailable,
)
from service_monitor.net.here import Here
from service_monitor.net.stop import Stop
from service_monitor.recipes.timings import Timings
from service_monitor.stores.base import Store
from service_monitor.stores.sqlite.store import SqliteStore
from service_monitor.timing import now


@pytest.fixture
def watching(run: Run) -> Iterator[Callable[..., Callable[[], Outcome]]]:
    """Give a function that starts `watch`; what it returns stops it."""
    stops: list[tuple[Stop, threading.Thread]] = []

    def start(*argv: str, **settings: object) -> Callable[[], Outcome]:
        stop, outcomes = Stop(), list[Outcome]()
        thread = threading.Thread(
            target=lambda: outcomes.append(run("watch", *argv, stop=stop, **settings))
        )
        thread.start()
        stops.append((stop, thread))

        def end() -> Outcome:
            stop.request(signal.SIGTERM)
            thread.join(HANG)
            assert not thread.is_alive(), "`watch` does not end"
            return outcomes[0]

        return end

    yield start
    for stop, thread in stops:
        stop.request()
        thread.join(HANG)


Watching = Callable[..., Callable[[], Outcome]]


def test_watch_publishes_releases_and_deregisters(
    watching: Watching, run: Run, store: Store, serve: Serve
) -> None:
    """The chain from one node to the next would be broken."""
    assert acquire(run, "es-1").code == 0
    server = serve(answering(status("200 OK")))
    end = watching(
        *("--label=es", "--service-id=es-1", "--interval=200ms", "--host=10.0.0.1"),
        *("--info=zone=a", '--info={"http_port": 9200}', "--advertise-port=9301"),
        f"--monitor-url={server.url.replace('//', '//user:s3cret@')}",
    )
    wait_until(lambda: passing(store) == ["es/hosts/es-1"])
    found = registration(store, "es/hosts/es-1")
    assert found is not None
    assert (found.host, found.info) == ("10.0.0.1", {"zone": "a", "http_port": 9200})
    assert found.port == 9301
    code, out, err = end()
    assert (code, out) == (0, "")
    assert "watching es-1 at http://user:***@127.0.0.1" in err
    assert "as host 10.0.0.1:9301\n" in err
    assert "s3cret" not in err
    assert "es-1 is up: 200 OK" in err
    assert passing(store) == []


def test_the_lines_of_the_2014_tool_work_as_they_stand(
    watching: Watching, run: Run, store: Store, serve: Serve
) -> None:
    """Units written in 2014 would not start any more."""
    url = serve(answering(status("200 OK"))).url.rstrip("/")
    lease = run("acquire-lease", "--label=MyService", "--service-id=Service-0x3241dc3")
    assert lease.code == 0
    end = watching(
        *("--label=MyService", "--service-id=Service-0x3241dc3"),
        *(f"--monitor-url={url}", "--host-ip=172.17.8.101"),
        '--service-info={"http_port": 9200, "transport_port": 9300, "name": "es-1"}',
    )
    wait_until(lambda: is_up(store, "myservice/hosts/Service-0x3241dc3"))
    assert run("hosts", "--label=MyService").out == "172.17.8.101\n"
    found = registration(store, "myservice/hosts/Service-0x3241dc3")
    assert found is not None
    assert found.info["transport_port"] == 9300
    assert end().code == 0


@pytest.mark.parametrize("host", ["172.17.0.1", "host.docker.internal"])
def test_watch_tells_nobody_what_is_another_machine_on_each(
    watching: Watching, store: Store, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """Three nodes would show one host, and be told to join themselves."""
    monkeypatch.setattr(SqliteStore, "local_address", lambda _: "10.0.0.7")
    monkeypatch.setattr("service_monitor.node.advertise.look", Here)
    url = f"--monitor-url=tcp://{host}:1"
    end = watching("--label=es", "--service-id=es-1", url, "--timeout=100ms")
    wait_until(lambda: passing(store) == ["es/hosts/es-1"])
    found = registration(store, "es/hosts/es-1")
    assert found is not None
    assert found.host == "10.0.0.7"
    err = end().err
    assert f"--monitor-url names {host} (" in err
    assert "others are told 10.0.0.7" in err


def test_watch_does_not_press_a_tcp_service(
    watching: Watching, run: Run, store: Store, serve: Serve
) -> None:
    """A database would lock the host out while the node waits to be believed."""
    assert acquire(run, "es-1").code == 0
    server, begun = serve(hanging), now()
    url = f"--monitor-url=tcp://127.0.0.1:{server.port}"
    end = watching("--label=es", "--service-id=es-1", url, "--rise=3", "--host=h")
    wait_until(lambda: "es/lease/es-1" not in keys(store))
    assert now() - begun >= 2
    assert server.connections == 3
    assert end().code == 0


def test_watch_waits_for_the_network(
    watching: Watching,
    store: Store,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At boot, before the network is up, every `watch` would end for good."""
    answers: list[Exception] = [StoreUnavailable("cannot tell") for _ in range(3)]
    answers += [LocalLack("no memory"), LocalLack("no memory")]
    answers += [StoreRefused("half a key"), StoreRefused("half a key")]

    def local_address(_: object) -> str:
        if answers:
            raise answers.pop()
        return "10.0.0.9"

    monkeypatch.setattr(SqliteStore, "local_address", local_address)
    url = serve(answering(status("200 OK"))).url
    argv = "--label=es", "--service-id=es-1", f"--monitor-url={url}"
    end = watching(*argv, timings=Timings(store_retry=0.02))
    wait_until(lambda: is_up(store, "es/hosts/es-1"))
    found = registration(store, "es/hosts/es-1")
    assert found is not None
    assert found.host == "10.0.0.9"
    err = end().err
    assert err.count("cannot tell; trying on") == 1
    assert err.count("no memory; trying on") == 1
    assert err.count("ERROR the store refuses us: half a key; trying on") == 1


def test_run_is_refused_before_it_queues(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would see that no waiting helps."""

    def local_address(_: object) -> str:
        raise StoreRefused("half a key")

    monkeypatch.setattr(SqliteStore, "local_address", local_address)
    outcome = run("run", *WATCH[1:], "--", "true")
    assert outcome.code == 69
    assert error_of(outcome) == "the store refuses us: half a key"


def test_watch_can_be_stopped_before_there_is_a_network(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`systemctl stop` would hang, or report a failure."""
    asked: list[int] = []

    def local_address(_: object) -> str:
        asked.append(1)
        raise StoreUnavailable("cannot tell")

    monkeypatch.setattr(SqliteStore, "local_address", local_address)
    end = watching(*WATCH[1:], timings=Timings(store_retry=HANG))
    wait_until(lambda: bool(asked))
    code, out, err = end()
    assert (code, out) == (0, "")
    assert "Traceback" not in err
    assert len(asked) == 1


def test_not_checking_a_certificate_is_not_done_in_silence(watching: Watching) -> None:
    """A forgotten --insecure would stay for years."""
    end = watching(
        "--label=es", "--monitor-url=https://u:s3cret@127.0.0.1:1", "--insecure"
    )
    err = end().err
    assert "the certificate of https://u:***@127.0.0.1:1 is not checked" in err
    assert "s3cret" not in err


def test_a_ca_that_is_not_asked_is_a_contradiction(
    run: Run, certificates: Certificates
) -> None:
    """An operator would believe the certificate is checked."""
    outcome = run(*WATCH, f"--ca={certificates.ca}", "--insecure")
    assert outcome.code == 2
    assert error_of(outcome) == "--ca and --insecure contradict each other"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ((5.0, None, None), (5.0, 3.0, 15.0)),
        ((1.0, None, None), (1.0, 1.0, 15.0)),
        ((1.0, None, 3.0), (1.0, 1.0, 3.0)),
        ((30.0, None, None), (30.0, 3.0, 33.0)),
        ((30.0, 10.0, None), (30.0, 10.0, 40.0)),
        ((2.0, 2.0, 4.0), (2.0, 2.0, 4.0)),
    ],
)
def test_defaults_follow_what_is_given(
    given: tuple[float, float | None, float | None], kept: tuple[float, ...]
) -> None:
    """--interval=1s alone would be an error, for a default that nobody chose."""
    assert (given[0], *checked_rhythm(*given)) == kept


def test_a_lease_that_cannot_be_kept_is_refused() -> None:
    """A record would lapse between two probes, and a healthy node come and go."""
    with pytest.raises(ConfigError, match="raise it to 8 s"):
        checked_rhythm(5.0, 3.0, 7.0)
