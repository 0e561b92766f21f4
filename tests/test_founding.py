"""Who founds a cluster: one service id, once."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack

import pytest

from integration.support.commands import (
    Run,
    acquire,
    finish,
    keys,
    register,
    started,
    wait_until,
)
from integration.support.commands import environment as environ
from integration.support.loopback import Serve, answering, status
from integration.support.run_script import SHOW, RunScript
from service_monitor.recipes.founder import Founder
from service_monitor.recipes.member import Member
from service_monitor.stores.base import Store

FOUNDER = "es/founder"
ONCE = "--found=once"
TELL = 'echo "$SERVICE_MONITOR_FIRST" >>$SEEN; '


def founder(store: Store) -> Founder:
    (record,) = store.list(FOUNDER).records
    found = Founder.from_json(record.value)
    assert found is not None
    return found


def write(store: Store, name: str, state: str, since: str = "03:14") -> None:
    value = Founder(name, "10.0.0.9", state, since=since)  # type: ignore[arg-type]
    store.create(FOUNDER, value.to_json(), None)


def test_the_first_start_founds(store: Store, sound: RunScript) -> None:
    """An empty label would never have a cluster."""
    with sound(TELL + "exec sleep 60", ONCE) as running:
        wait_until(lambda: FOUNDER in keys(store) and founder(store).founded)
        assert sound.said() == "1\n"
        running.terminate()
        finish(running)
    assert founder(store).service_id == "es-1"


def test_a_later_start_founds_nothing(store: Store, sound: RunScript) -> None:
    """A node that starts while all others are down would found a second cluster."""
    write(store, "es-9", "founded")
    with sound(SHOW + "exit 3", ONCE) as running:
        assert finish(running).err.count("0 \n") == 1


def test_a_founder_killed_in_its_first_start_founds_again(
    store: Store, booting: RunScript
) -> None:
    """The label would be stuck, or another would found beside what is on its disk."""
    with booting(TELL + "echo $$ >>$SEEN; exec sleep 60", ONCE) as running:
        wait_until(lambda: booting.said().count("\n") == 2)
        running.kill()
        os.kill(int(booting.said().split()[1]), signal.SIGKILL)
    assert not founder(store).founded
    with booting(TELL + "exec sleep 60", ONCE) as running:
        wait_until(lambda: booting.said().endswith("1\n"))
        running.terminate()
        finish(running)
    assert not founder(store).founded


def test_the_others_wait_for_a_founder_that_is_away(
    store: Store, sound: RunScript
) -> None:
    """A second cluster would be founded beside what the first has on its disk."""
    write(store, "es-9", "claimed")
    with sound("exit 3", ONCE, "--acquire-timeout=2s") as running:
        outcome = finish(running)
    assert outcome.code == 1
    why = (
        "es-9 began to found at 03:14 and has not come up; bring it back, or "
        "`reset --label=es` after emptying its disk"
    )
    assert outcome.err.count(f"waiting, {why}") == 1
    assert f"not acquired within 2 s: {why}" in outcome.err
    assert founder(store).service_id == "es-9"


def test_the_claim_is_given_back_where_nothing_was_started(
    run: Run, store: Store, sound: RunScript
) -> None:
    """Nobody else could found, for a command that is not there."""
    argv = [*sound.argv(ONCE), "--", "/nowhere"]
    assert run(*argv).code == 127
    assert keys(store) == []


def test_who_claimed_goes_ahead_of_those_that_wait_for_it(
    store: Store, sound: RunScript
) -> None:
    """All would wait for the founder, and the founder for the first of them."""
    write(store, "es-1", "claimed")
    others = ["run", "--label=es", "--service-id=es-2", "--host=10.0.0.2", ONCE]
    others += [f"--monitor-url={sound.url}", "--", "sleep", "60"]
    with started(others, environ(sound.path)) as waiting:
        wait_until(lambda: "es/lease/es-2" in keys(store))
        with sound(TELL + "exec sleep 60", ONCE) as running:
            wait_until(lambda: sound.said() == "1\n")
            wait_until(lambda: founder(store).founded)
            wait_until(lambda: "es/hosts/es-2" in keys(store))
            running.terminate()
            finish(running)
        waiting.terminate()
        finish(waiting)


def test_up_is_not_founded_where_the_settled_url_says_no(
    store: Store, sound: RunScript, serve: Serve
) -> None:
    """A node with a wrong name answers 200, is in no cluster, and passes for one."""
    settled = f"--settled-url={serve(answering(status('503 no master'))).url}"
    with sound("exec sleep 60", ONCE, settled, "--interval=1s") as running:
        wait_until(lambda: "es/hosts/es-1" in keys(store))
        wait_until(lambda: "es/lease/es-1" not in keys(store))
        time.sleep(1)
        running.terminate()
        outcome = finish(running)
    assert "not settled yet: --settled-url says 503 no master" in outcome.err
    assert not founder(store).founded


def test_founded_is_learned_again(store: Store, sound: RunScript) -> None:
    """A store that lost its data would let the next start found a second cluster."""
    with sound("exec sleep 60", ONCE, "--interval=1s") as running:
        wait_until(lambda: FOUNDER in keys(store) and founder(store).founded)
        store.delete(store.list(FOUNDER).records[0])
        wait_until(lambda: FOUNDER in keys(store))
        assert founder(store).founded
        running.terminate()
        finish(running)


def test_an_old_label_is_taken_as_founded(store: Store, sound: RunScript) -> None:
    """The first start after an upgrade would found a second cluster."""
    register(store, "es-2", "10.0.0.2")
    with sound(SHOW + "exit 3", ONCE) as running:
        assert "0 10.0.0.2\n" in finish(running).err
    assert founder(store).founded
    assert founder(store).reason == "es-2 is up"


@pytest.mark.parametrize("value", ["", "{}", '{"state": "electing"}'])
def test_what_cannot_be_read_lets_nobody_found(
    run: Run, store: Store, sound: RunScript, value: str
) -> None:
    """A record of a newer release would be taken for none."""
    store.create(FOUNDER, value, None)
    outcome = run(*sound.argv(ONCE, "--acquire-timeout=1s"), "--", "true")
    assert outcome.code == 1
    assert "cannot be read, so nobody founds" in outcome.err


def test_of_several_at_a_time_one_founds(store: Store, sound: RunScript) -> None:
    """With --slots above 1 each of them would found a cluster of its own."""
    argv = [*sound.argv(ONCE, "--slots=2")]
    script = 'echo "$SERVICE_MONITOR_FIRST" >>$SEEN; exec sleep 60'
    with ExitStack() as stack:
        running = []
        for name in "es-1", "es-2", "es-3":
            own = [*argv, f"--service-id={name}", "--", "sh", "-c", script]
            env = environ(sound.path, SEEN=str(sound.seen))
            running.append(stack.enter_context(started(own, env)))
        wait_until(lambda: sound.said().count("\n") == 3)
        for each in running:
            each.terminate()
        for each in running:
            finish(each)
    assert sorted(sound.said().split()) == ["0", "0", "1"]


def test_a_script_is_told_its_role(run: Run, store: Store) -> None:
    """A start script would have to race for it."""
    first = acquire(run, "es-1", ONCE, "--print-token", "--print-role")
    token, role = first.out.split()
    assert role == "founder"
    assert int(token) > 0
    assert founder(store).service_id == "es-1"
    store.delete(store.list("es/lease/es-1").records[0])
    again = acquire(run, "es-1", ONCE, "--print-role")
    assert again.out == "founder\n"
    store.delete(store.list("es/lease/es-1").records[0])
    other = acquire(run, "es-2", ONCE, "--print-role", "--acquire-timeout=1s")
    assert other.code == 1
    assert other.out == ""
    assert "es-1 began to found at" in other.err


def test_a_script_joins_what_was_founded(run: Run, store: Store) -> None:
    """It would found a second cluster while all others are down."""
    write(store, "es-9", "founded")
    assert acquire(run, "es-1", ONCE, "--print-role").out == "joiner\n"


def test_a_watch_writes_that_the_cluster_is_founded(
    run: Run, store: Store, sound: RunScript
) -> None:
    """All others would wait for ever for a founder that a script started."""
    assert acquire(run, "es-1", ONCE).code == 0
    _, *argv = sound.argv(ONCE)
    with started(["watch", *argv], environ(sound.path)) as watching:
        wait_until(lambda: founder(store).founded)
        watching.terminate()
        finish(watching)
    assert founder(store).service_id == "es-1"


def test_the_store_lost_the_claim_of_a_founder_that_is_up(
    store: Store, sound: RunScript, serve: Serve
) -> None:
    """The next start would take the cluster for founded, or found a second one."""
    settled = f"--settled-url={serve(answering(status('503 no master'))).url}"
    with sound("exec sleep 60", ONCE, settled, "--interval=1s") as running:
        wait_until(lambda: "es/hosts/es-1" in keys(store))
        time.sleep(1)
        store.delete(store.list(FOUNDER).records[0])
        wait_until(lambda: FOUNDER in keys(store))
        assert not founder(store).founded
        running.terminate()
        finish(running)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--settled-url=http://127.0.0.1/"], "of use with --found=once alone"),
        ([ONCE, "--settled-url=tcp://127.0.0.1:1"], "--settled-url needs http(s)"),
        (["--found=elect"], "elect"),
    ],
)
def test_what_makes_no_sense_is_refused(
    run: Run, sound: RunScript, options: list[str], why: str
) -> None:
    """A founder would never be known to have founded."""
    outcome = run(*sound.argv(*options), "--", "true")
    assert outcome.code == 2
    assert why in outcome.err


def test_a_role_needs_a_founder(run: Run) -> None:
    """A script would take "joiner" for the truth in a label that nobody claims."""
    outcome = acquire(run, "es-1", "--print-role")
    assert outcome.code == 2
    assert "--print-role needs --found=once" in outcome.err


def test_all_that_are_remembered_are_told(store: Store, sound: RunScript) -> None:
    """After a power cut nodes that know only who is up never find one another."""
    for number in 1, 2, 3:
        member = Member(f"es-{number}", f"10.0.0.{number}", "down")
        store.create(f"es/members/es-{number}", member.to_json(), None)
    register(store, "es-10", "10.0.0.10")
    script = 'echo "$SERVICE_MONITOR_MEMBERS $SERVICE_MONITOR_HOSTS" >&2; exit 3'
    with sound(script, ONCE) as running:
        assert "10.0.0.2,10.0.0.3,10.0.0.10 10.0.0.10\n" in finish(running).err


@pytest.mark.parametrize("state", ["up", "stopped"])
def test_a_start_after_a_power_cut_knows_its_peers(
    store: Store, sound: RunScript, state: str
) -> None:
    """Nobody is up, and it would found a cluster of its own, or look for nobody."""
    write(store, "es-9", "founded")
    member = Member("es-2", "10.0.0.2", state)  # type: ignore[arg-type]
    store.create("es/members/es-2", member.to_json(), None)
    told = "$SERVICE_MONITOR_FIRST,${SERVICE_MONITOR_HOSTS-unset},"
    script = f'echo "{told}$SERVICE_MONITOR_MEMBERS" >&2; exit 3'
    with sound(script, ONCE) as running:
        assert "0,,10.0.0.2\n" in finish(running).err


def test_a_node_that_was_up_is_remembered_as_a_founder_of_old(
    run: Run, store: Store, sound: RunScript
) -> None:
    """Switched to "once", a label of old would be founded a second time."""
    with sound("exec sleep 60") as running:
        wait_until(lambda: "es/members/es-1" in keys(store))
        running.terminate()
        finish(running)
    assert acquire(run, "es-2", ONCE, "--print-role").out == "joiner\n"
    assert founder(store).reason == "es-1 is remembered"
