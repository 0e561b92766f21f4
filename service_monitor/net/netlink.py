"""List the addresses of this machine, as its kernel tells them: rtnetlink(7)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping

from service_monitor.net.lacks import lack_in

_GET_ADDRESSES, _DONE, _ERROR = 22, 3, 2  # RTM_GETADDR, NLMSG_DONE, NLMSG_ERROR
_REQUEST_DUMP = 0x301
_ADDRESS, _LOCAL = 1, 2  # IFA_ADDRESS, IFA_LOCAL: the same but on a point-to-point link


def own_addresses() -> Iterator[tuple[str, str, int]]:
    """Give interface, address and length of the prefix of all there are.

    IPv6 ones without zone; none where a sandbox does not tell. Blocks for a second at
    the most for each answer of the kernel. Raises `LocalLack`.
    """
    header = struct.pack("=IHHIIBxxxI", 24, _GET_ADDRESSES, _REQUEST_DUMP, 1, 0, 0, 0)
    try:
        names = dict(socket.if_nameindex())
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as kernel:
            kernel.settimeout(1)
            kernel.send(header)
            while True:
                answer = kernel.recv(65536)
                for kind, body in _messages(answer):
                    if kind in (_DONE, _ERROR):
                        return
                    if kind == _GET_ADDRESSES - 2:  # RTM_NEWADDR
                        yield from _address(body, names)
    except OSError as error:  # a sandbox whose kernel does not tell
        if lack := lack_in(error):
            raise lack from error


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 16:
        length, kind = struct.unpack_from("=IH", data)
        yield kind, data[16:length]
        data = data[(length + 3) & ~3 :]


def _address(body: bytes, names: Mapping[int, str]) -> Iterator[tuple[str, str, int]]:
    family, length, index = struct.unpack_from("=BBxxI", body)
    if family not in (socket.AF_INET, socket.AF_INET6):
        return
    found, rest = {}, body[8:]
    while len(rest) >= 4:
        size, kind = struct.unpack_from("=HH", rest)
        found[kind] = rest[4:size]
        rest = rest[(size + 3) & ~3 :]
    if value := found.get(_LOCAL) or found.get(_ADDRESS):
        yield names.get(index, ""), socket.inet_ntop(family, value), length
