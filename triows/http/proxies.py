"""Who speaks, behind reverse proxies that say so."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network
from typing import final

from triows.http.head import Head
from triows.transport import Transport


@final
class Proxies:
    """The reverse proxies that are believed.

    Args:
        networks: of their addresses, such as `127.0.0.1` or `10.0.0.0/8`.
    """

    def __init__(self, networks: tuple[str, ...]) -> None:
        self._networks = [ip_network(network) for network in networks]

    def tell(self, transport: Transport, head: Head) -> None:
        """Have `transport.peer` say whose request `head` is.

        That is the last address in `X-Forwarded-For` that is none of ours: those before it were
        written by the client itself, as far as anybody knows. What is no address is not
        believed, and neither is what comes before it.
        """
        peer = transport.address
        for address in reversed(head.tokens("x-forwarded-for")):
            if not self._are(peer) or not _is_address(address):
                break
            peer = address
        transport.peer = peer

    def _are(self, address: str) -> bool:
        """Whether one of them has this address."""
        if not _is_address(address):
            return False
        ip = ip_address(address)
        if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped  # as a port that listens on :: sees who comes by IPv4
        return any(ip in network for network in self._networks)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
