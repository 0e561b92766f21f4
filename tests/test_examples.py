"""The examples' YAML files are what they look like, without an engine to run them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from integration.support.documents import ROOT, real
from service_monitor.cli.app import cli

IMAGE = "service_monitor"
MANIFESTS = sorted((ROOT / "examples/kubernetes").glob("*.yaml"))
COMPOSE_FILES = sorted((ROOT / "examples").rglob("*.yml"))


def containers(file: Path) -> Iterator[dict[str, Any]]:
    """Give the containers of a manifest or the services of a compose file."""
    for document in yaml.safe_load_all(file.read_text()):
        yield from document.get("services", {}).values()
        pod = document.get("spec", {}).get("template", {}).get("spec", {})
        yield from pod.get("initContainers", []) + pod.get("containers", [])


def words(container: dict[str, Any]) -> list[str]:
    """Give what follows the image's entrypoint; nothing if there is another one."""
    if container.get("image") != IMAGE or "entrypoint" in container:
        return []
    line = container.get("args" if "args" in container else "command", [])
    if "args" in container and "command" in container:
        return []
    return shlex.split(line) if isinstance(line, str) else list(line)


@pytest.mark.parametrize("file", MANIFESTS + COMPOSE_FILES, ids=lambda f: f.parent.name)
def test_what_the_sidecar_is_told_is_understood(file: Path) -> None:
    """A copied example would end with a usage error."""
    found = list(containers(file))
    assert found
    for command, *rest in filter(None, map(words, found)):
        known = {name for row in real(command) for name in row.names}
        ours = rest[: rest.index("--")] if "--" in rest else rest
        used = {word.partition("=")[0] for word in ours if word.startswith("-")}
        assert command in cli.commands
        assert used <= known, f"{command} {rest}"


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda f: f.stem)
def test_the_manifest_is_a_pod_in_turn(file: Path) -> None:
    """Kubernetes would refuse it, or start the service before its turn."""
    (manifest,) = yaml.safe_load_all(file.read_text())
    assert (manifest["apiVersion"], manifest["kind"]) == ("apps/v1", "Deployment")
    template = manifest["spec"]["template"]
    chosen = manifest["spec"]["selector"]["matchLabels"]
    assert chosen.items() <= template["metadata"]["labels"].items()
    pod = template["spec"]
    turn, watch = pod["initContainers"]
    assert "restartPolicy" not in turn  # so the rest waits for its end
    assert watch["restartPolicy"] == "Always"  # so the rest does not
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in (turn, watch, *pod["containers"]):
        mounts = container.get("volumeMounts", [])
        assert {mount["name"] for mount in mounts} <= volumes
    ours = ("SERVICE_MONITOR_LABEL", "SERVICE_MONITOR_SERVICE_ID")
    for name in ours:
        told = [e for c in (turn, watch) for e in c["env"] if e["name"] == name]
        assert len(told) == 2
        assert told[0] == told[1]
