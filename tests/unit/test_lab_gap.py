"""What counts as an attempt to get out of the air gap, and which frames the listener is given at all."""

from __future__ import annotations

import ipaddress
import struct

import pytest

from lab import gap

SUBNET = ipaddress.IPv4Network("10.91.2.0/24")
GATEWAY = "10.91.2.1"
SYN, REPLY = 0x02, 0x10


def frame(source: str, target: str, protocol: int, body: bytes) -> bytes:
    """An Ethernet frame with an IPv4 packet."""
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, protocol, 0)
    packed = header + ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(target).packed
    return bytes(12) + struct.pack("!H", gap.ETH_IPV4) + packed + body


def tcp(port: int, flags: int) -> bytes:
    """A TCP header."""
    return struct.pack("!HHLLBBHHH", 40000, port, 0, 0, 0x50, flags, 0, 0, 0)


def dns(name: str) -> bytes:
    """A UDP datagram with a question for a name server."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHH", 40000, 53, 0, 0) + bytes(12) + labels + b"\0\0\1\0\1"


def let_through(program: list[tuple[int, int, int, int]], data: bytes) -> bool:
    """Run a BPF program as the kernel does."""
    at, value = 0, 0
    while True:
        code, yes, no, k = program[at]
        at += 1
        if code == 0x06:
            return k > 0
        if code in (0x20, 0x28):
            value = int.from_bytes(data[k : k + (4 if code == 0x20 else 2)], "big")
        elif code == 0x54:
            value &= k
        else:
            at += yes if value == k else no


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (frame("10.91.2.10", "198.51.100.7", gap.TCP, tcp(443, SYN)), "10.91.2.10 -> tcp 198.51.100.7:443"),
        (frame("10.91.2.10", GATEWAY, gap.UDP, dns("deb.example.org")), "udp 10.91.2.1:53 (asks for deb.example.org)"),
        (frame("10.91.2.10", GATEWAY, gap.TCP, tcp(3128, SYN)), "tcp 10.91.2.1:3128"),
        (frame("10.91.2.10", "10.91.2.255", gap.UDP, dns("x")), "udp 10.91.2.255:53 (asks for x)"),
        (frame("10.91.2.10", "8.8.8.8", gap.ICMP, b"\x08\0\0\0"), "icmp 8.8.8.8"),
        (frame("10.91.2.10", GATEWAY, gap.TCP, tcp(50022, REPLY)), None),
        (frame("10.91.2.10", GATEWAY, gap.TCP, tcp(50022, SYN | REPLY)), None),
        (frame("10.91.2.10", "10.91.2.11", gap.TCP, tcp(8443, SYN)), None),
        (frame("10.91.2.10", "224.0.0.22", 2, b""), None),
    ],
)
def test_what_wants_out_is_named(data: bytes, wanted: str | None) -> None:
    found = gap.attempt(data, SUBNET, GATEWAY, 0.0)
    assert (found is None) == (wanted is None)
    if wanted is not None:
        assert str(found).endswith(wanted)


@pytest.mark.parametrize(
    ("source", "target", "wanted"),
    [
        ("10.91.2.10", "198.51.100.7", True),
        ("10.91.2.10", GATEWAY, True),
        ("10.91.2.10", "10.91.2.11", False),  # gigabytes go this way: Python must not see them
        ("10.91.3.10", "198.51.100.7", False),  # another network's host
    ],
)
def test_the_listener_gets_only_what_may_matter(source: str, target: str, wanted: bool) -> None:
    program = gap.filter_of(SUBNET, GATEWAY)
    assert let_through(program, frame(source, target, gap.TCP, tcp(443, SYN))) is wanted


def test_the_listener_gets_all_of_ipv6_and_nothing_else() -> None:
    program = gap.filter_of(SUBNET, GATEWAY)
    assert let_through(program, bytes(12) + struct.pack("!H", gap.ETH_IPV6) + bytes(40))
    assert not let_through(program, bytes(12) + b"\x08\x06" + bytes(40))
