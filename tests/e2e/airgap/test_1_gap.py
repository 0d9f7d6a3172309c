"""The gap itself: what wants out is dropped, counted and named. Else the silence of the other tests proves nothing."""

from __future__ import annotations

from tests.support.airgap import GapSite

CONNECT = "import socket; socket.create_connection(('198.51.100.7', 443), 1)"


def test_the_hosts_are_bare(gap: GapSite) -> None:
    for name in gap.hosts:
        assert gap.on(name, "ls -A /opt /srv") == "/opt:\n\n/srv:\n", f"{name} is not empty"
        assert gap.on(name, "command -v docker nginx pip minisign gpg || true") == ""


def test_an_attempt_to_get_out_is_counted_and_named(gap: GapSite) -> None:
    assert gap.watch is not None
    gap.watch.reset()
    gap.on(gap.main, f'python3 -c "{CONNECT}"', check=False)
    gap.on(gap.main, "timeout 2 getent hosts packages.example.org", check=False)
    assert gap.watch.count() >= 2, gap.watch.report()
    report = gap.watch.report()
    assert "tcp 198.51.100.7:443" in report
    assert "asks for packages.example.org" in report
    gap.watch.reset()
    assert gap.watch.count() == 0


def test_hosts_behind_the_gap_reach_each_other(gap: GapSite) -> None:
    gap.on(gap.control.name, f"python3 -c \"import socket; socket.create_connection(('{gap.address}', 22), 5)\"")
    assert gap.watch is not None
    assert gap.watch.count() == 0, gap.watch.report()
