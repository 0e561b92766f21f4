"""Whether a host is the same machine for everybody."""

from __future__ import annotations

import ipaddress
from contextlib import suppress

from service_monitor.net.addresses import canonical, is_only_here
from service_monitor.net.here import ENGINES, Here

_ENGINES = {str(place.ip): name for place, name in ENGINES.items()}


def elsewhere_another(host: str, here: Here) -> str | None:
    """Say what makes this host another machine on each machine; None if nothing does.

    A name is looked up in /etc/hosts alone: to ask for it could hang, and the answer
    would be for this machine only.
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
    reasons = [elsewhere_another(address, here) for address in listed]
    if reasons and all(reasons):
        return f"{reasons[0]}, says /etc/hosts"
    return None


def behind(host: str, here: Here) -> str | None:
    """Say behind which bridge of this machine an address is, None if behind none.

    Good on this machine; others do not reach it, and may have one of the same name.
    """
    with suppress(ValueError):  # a name
        address = ipaddress.ip_address(canonical(host))
        for network, bridge in here.networks.items():
            if address in network:
                return bridge
    return None
