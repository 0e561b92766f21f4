"""Whether a host name or address means the same machine on every machine."""

from __future__ import annotations

import ipaddress
from contextlib import suppress

from service_monitor.net.addresses import canonical, is_only_here
from service_monitor.net.here import ENGINES, Here

_ENGINES = {str(place.ip): name for place, name in ENGINES.items()}


def why_ambiguous(host: str, here: Here) -> str | None:
    """Say why the host is another machine on each machine, None if it is one for all.

    A name is looked up in /etc/hosts alone: a resolver could hang, and its answer would
    be for this machine only.
    """
    if why := is_only_here(host):
        return why
    host = canonical(host)
    if host in here.gateways:
        return "the gateway of this container"
    if bridge := here.bridges.get(host):
        return f"the address of the bridge {bridge}"
    if host in _ENGINES and host not in here.addresses:
        return _ENGINES[host]
    listed = here.names.get(host.lower().rstrip("."), ())
    reasons = [why_ambiguous(address, here) for address in listed]
    if reasons and all(reasons):
        return f"{reasons[0]}, says /etc/hosts"
    return None


def behind(host: str, here: Here) -> str | None:
    """Say behind which bridge of this machine an address is, None if behind none.

    This machine reaches such an address. Others do not, and may have one that looks the
    same.
    """
    with suppress(ValueError):  # a name
        address = ipaddress.ip_address(canonical(host))
        for network, bridge in here.networks.items():
            if address in network:
                return bridge
    return None
