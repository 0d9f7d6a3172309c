"""The images of lab hosts: a small Debian server with systemd, sshd and two users, as a datacentre hands it over."""

from __future__ import annotations

import threading
from pathlib import Path

from lab.archive import Image, TarLayer, write_image
from lab.debian import bootstrap
from lab.report import Report

SUITES = {"debian13": "trixie", "debian12": "bookworm"}
PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "openssh-server", "python3", "python3-apt", "ca-certificates", "sudo",
    "iproute2", "procps", "netbase", "curl", "logrotate",
)  # fmt: skip
EXCLUDES = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*", "/usr/share/lintian/*")

# The users are those of design: one who may become root, one who may not. Host keys and authorised keys are put in when
# a host is made. The timers of apt would hold its lock at random moments; there are no consoles to log in on.
HOOK = r"""
set -eu
root=$1
for user in operator guest; do
    chroot "$root" getent group "$user" >/dev/null || chroot "$root" groupadd "$user"
done
chroot "$root" useradd --create-home --uid 1000 --gid operator --shell /bin/bash operator
chroot "$root" useradd --create-home --uid 1001 --gid guest --shell /bin/bash guest
for user in operator guest; do
    install -d -m 0700 -o "$(chroot "$root" id -u $user)" -g "$(chroot "$root" id -g $user)" "$root/home/$user/.ssh"
done
install -d -m 0700 "$root/root/.ssh"
printf 'operator ALL=(ALL) NOPASSWD: ALL\n' >"$root/etc/sudoers.d/operator"
chmod 0440 "$root/etc/sudoers.d/operator"
rm -f "$root"/etc/ssh/ssh_host_*
printf 'HostKey /etc/ssh/ssh_host_ed25519_key\nPasswordAuthentication no\nUseDNS no\n' \
    >"$root/etc/ssh/sshd_config.d/lab.conf"
printf 'LANG=C.UTF-8\n' >"$root/etc/default/locale"
: >"$root/etc/machine-id"
rm -f "$root/var/lib/dbus/machine-id"
install -d "$root/media/redoubt"
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer console-getty.service getty.target \
    systemd-logind.service systemd-udevd.service systemd-udev-trigger.service systemd-modules-load.service \
    sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount dev-hugepages.mount dev-mqueue.mount; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
rm -rf "$root"/var/log/*.log "$root"/var/log/apt/* "$root"/var/cache/ldconfig/*
"""


def build(platform: str, key: str, archive: Path, work: Path, report: Report, stop: threading.Event) -> Image:
    """Make the image of hosts of this platform and write its archive."""
    root = work / f"{archive.name}.root"
    with report.phase(f"Build the host image for {platform}"):
        try:
            bootstrap(
                SUITES[platform], root, variant="minbase", include=PACKAGES, excludes=EXCLUDES, hooks=[HOOK],
                report=report, stop=stop,
            )  # fmt: skip
            return write_image(
                archive,
                name=f"redoubt.lab/host-{platform}",
                tag=key[:8],
                layers=[TarLayer(root)],
                config={
                    # Debian 13's systemd refuses the old control groups without this word; Debian 12's ignores it.
                    "Cmd": ["/lib/systemd/systemd", "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"],
                    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "container=docker"],
                    "StopSignal": "SIGRTMIN+3",
                    "Labels": {"redoubt.lab": "1"},
                },
            )
        finally:
            root.unlink(missing_ok=True)
