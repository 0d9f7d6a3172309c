"""The air gap: a network of lab hosts without a way out, where every attempt to get out is counted and written down.

Hosts have a default route and a name server there, as on a real site whose router leads nowhere: what they send to it
arrives at this machine's end of the network, is counted by the packet filter, noted by a listener, and dropped.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import docker

from lab import net, paths
from lab.errors import LabError
from lab.report import Report
from lab.tools import find, require, run

CHAIN = f"REDOUBT-GAP-{paths.CHECKOUT}"
ETH_ALL, ETH_IPV4, ETH_IPV6 = 0x0003, 0x0800, 0x86DD
ICMP, TCP, UDP = 1, 6, 17
ATTACH_FILTER = 26  # SO_ATTACH_FILTER
SYN, ACK = 0x02, 0x10
#: Multicast of the segment itself (IGMP, neighbours): no router passes it on.
SEGMENT = ("224.0.0.0/24", "ff02::/16")
UNIT = "lab-gap.service"


@dataclass(frozen=True)
class Attempt:
    """One packet of a host that wanted out: seconds since the watch began, who, what, whither, and more where known."""

    seconds: float
    source: str
    protocol: str
    target: str
    port: int = 0
    detail: str = ""

    def __str__(self) -> str:
        target = f"{self.target}:{self.port}" if self.port else self.target
        more = f" ({self.detail})" if self.detail else ""
        return f"{self.seconds:8.2f} s  {self.source} -> {self.protocol} {target}{more}"


def unit(gateway: str) -> str:
    """The unit of a host behind the gap: a router and a name server that answer nothing, after each boot too."""
    return (
        "[Unit]\nDescription=A way out that leads nowhere\nDefaultDependencies=no\nBefore=network.target ssh.service\n"
        "[Service]\nType=oneshot\nRemainAfterExit=yes\n"
        f"ExecStart=/bin/sh -c 'ip route replace default via {gateway}; echo nameserver {gateway} >/etc/resolv.conf'\n"
        "[Install]\nWantedBy=sysinit.target\n"
    )


class Watch:
    """Counts and writes down what leaves the network; stops nothing but what wants out. Use it as a context."""

    def __init__(self, client: docker.DockerClient, report: Report) -> None:
        require({"iptables": "iptables"}, report)
        with net.gap(client) as (network, _):
            self._subnet = net.subnet(network)
            self._bridge = f"br-{str(network.id)[:12]}"
        self._gateway = str(self._subnet[1])
        self._attempts: list[Attempt] = []
        self._start = time.monotonic()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Watch:
        self._install()
        # On every interface: what the packet filter drops at a port of the bridge never arrives at the bridge itself.
        listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_ALL))
        attach(listener, filter_of(self._subnet, self._gateway))
        listener.settimeout(0.5)
        self._thread = threading.Thread(target=self._listen, args=(listener,), name="gap", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5)
        self._remove()

    def count(self) -> int:
        """Packets that wanted out, as the packet filter counted them."""
        listed = _iptables("-n", "-v", "-x", "-L", CHAIN)
        return sum(int(match[1]) for match in re.finditer(r"^\s*(\d+)\s+\d+\s+DROP\b", listed, re.MULTILINE))

    def attempts(self) -> list[Attempt]:
        """What was written down, in order."""
        return list(self._attempts)

    def reset(self) -> None:
        """Begin again at nothing."""
        _iptables("-Z", CHAIN)
        self._attempts.clear()
        self._start = time.monotonic()

    def report(self) -> str:
        """Who wanted where, and how often; for people."""
        rows = Counter(
            (item.source, item.protocol, item.target, item.port, item.detail) for item in self._attempts
        ).most_common(40)
        lines = [f"{count:6} x {Attempt(0, *row)}".replace("    0.00 s  ", "") for row, count in rows]
        return f"{self.count()} packets wanted out of {self._subnet}:\n" + "\n".join(lines)

    # The packet filter: it counts whatever the listener may miss

    def _install(self) -> None:
        self._remove()
        _iptables("-N", CHAIN)
        for multicast in SEGMENT[:1]:
            _iptables("-A", CHAIN, "-d", multicast, "-j", "RETURN")
        # What this machine began itself (it is where the operator sits) is answered.
        _iptables("-A", CHAIN, "-d", self._gateway, "-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "RETURN")
        _iptables("-A", CHAIN, "-d", self._gateway, "-j", "DROP")
        _iptables("-A", CHAIN, "-d", str(self._subnet), "-j", "RETURN")
        _iptables("-A", CHAIN, "-j", "DROP")
        _iptables("-A", "PREROUTING", "-i", self._bridge, "-j", CHAIN)

    def _remove(self) -> None:
        for line in _iptables("-S", "PREROUTING").splitlines():
            if line.endswith(f"-j {CHAIN}"):
                _iptables("-D", *line.split()[1:])
        with contextlib.suppress(LabError):
            _iptables("-F", CHAIN)
            _iptables("-X", CHAIN)

    # The listener: it tells who wanted what

    def _listen(self, listener: socket.socket) -> None:
        with listener:
            while not self._stop.is_set():
                try:
                    frame, where = listener.recvfrom(65535)
                except TimeoutError:
                    continue
                except OSError:
                    return
                port = Path("/sys/class/net") / self._bridge / "brif" / str(where[0])
                if where[2] == socket.PACKET_OUTGOING or not port.exists():
                    continue
                found = attempt(frame, self._subnet, self._gateway, time.monotonic() - self._start)
                if found is not None:
                    self._attempts.append(found)


def filter_of(subnet: net.Net, gateway: str) -> list[tuple[int, int, int, int]]:
    """A BPF program that lets through what a host of the subnet sends out of it or to the gateway, and all of IPv6."""
    mask, network, router = (int(address) for address in (subnet.netmask, subnet[0], ipaddress.IPv4Address(gateway)))
    load_half, load_word, mask_with, equal, give = 0x28, 0x20, 0x54, 0x15, 0x06
    return [
        (load_half, 0, 0, 12),
        (equal, 8, 0, ETH_IPV6),
        (equal, 0, 8, ETH_IPV4),
        (load_word, 0, 0, 26),  # source
        (mask_with, 0, 0, mask),
        (equal, 0, 5, network),
        (load_word, 0, 0, 30),  # target
        (equal, 2, 0, router),
        (mask_with, 0, 0, mask),
        (equal, 1, 0, network),
        (give, 0, 0, 65535),
        (give, 0, 0, 0),
    ]


def attach(listener: socket.socket, program: list[tuple[int, int, int, int]]) -> None:
    """Give a raw socket its filter, so that Python sees only what is wanted."""
    code = b"".join(struct.pack("HBBI", *step) for step in program)
    memory = ctypes.create_string_buffer(code)
    described = struct.pack("HL", len(program), ctypes.addressof(memory))
    listener.setsockopt(socket.SOL_SOCKET, ATTACH_FILTER, described)


def attempt(frame: bytes, subnet: net.Net, gateway: str, seconds: float) -> Attempt | None:
    """What an Ethernet frame from a host wants outside; None where it stays inside or answers this machine."""
    kind = struct.unpack_from("!H", frame, 12)[0]
    packet = frame[14:]
    if kind == ETH_IPV6 and len(packet) >= 40:
        target6 = ipaddress.IPv6Address(packet[24:40])
        if target6 in ipaddress.ip_network(SEGMENT[1]) or target6.is_link_local:
            return None
        return Attempt(seconds, str(ipaddress.IPv6Address(packet[8:24])), f"IPv6/{packet[6]}", str(target6))
    if kind != ETH_IPV4 or len(packet) < 20:
        return None
    length, protocol = (packet[0] & 15) * 4, packet[9]
    source, target = str(ipaddress.IPv4Address(packet[12:16])), ipaddress.IPv4Address(packet[16:20])
    if target in ipaddress.ip_network(SEGMENT[0]):
        return None
    body = packet[length:]
    if str(target) == gateway:
        answers = protocol == TCP and not (len(body) > 13 and body[13] & SYN and not body[13] & ACK)
        if answers or protocol == ICMP:
            return None
    elif target in subnet and target != subnet.broadcast_address:
        return None
    name = {ICMP: "icmp", TCP: "tcp", UDP: "udp"}.get(protocol, str(protocol))
    port = struct.unpack_from("!H", body, 2)[0] if protocol in (TCP, UDP) and len(body) >= 4 else 0
    detail = question(body[8:]) if protocol == UDP and port == socket.getservbyname("domain", "udp") else ""
    return Attempt(seconds, source, name, str(target), port, detail)


def question(message: bytes) -> str:
    """The name that a DNS message asks for; '' where it is none."""
    labels, at = [], 12
    while at < len(message) and message[at]:
        size = message[at]
        labels.append(message[at + 1 : at + 1 + size].decode("ascii", "replace"))
        at += size + 1
    return f"asks for {'.'.join(labels)}" if labels else ""


def _iptables(*words: str) -> str:
    program = find("iptables") or "iptables"
    return run([program, "-w", "10", "-t", "mangle", *words], what="the packet filter of the gap", timeout=30)


@contextmanager
def watched(client: docker.DockerClient, report: Report) -> Iterator[Watch]:
    """A watch over the gap, as long as the block runs."""
    with Watch(client, report) as watch:
        yield watch
