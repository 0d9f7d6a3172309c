"""Logs, secrets, damage."""

from __future__ import annotations

import json

from tests.support.site import MODEL, Site

ACCESS_LOG = "/var/log/nginx/gateway-audit.jsonl"

# Flips one bit near the end of a file and puts its times back, as failing hardware would.
FLIP = """
import os, sys
path = sys.argv[1]
info = os.stat(path)
os.chmod(path, 0o644)
with open(path, "r+b") as file:
    file.seek(-9, 2)
    byte = file.read(1)[0]
    file.seek(-9, 2)
    file.write(bytes([byte ^ 1]))
os.chmod(path, info.st_mode & 0o777)
os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
"""


def test_logrotate_runs_and_nginx_still_logs(site: Site) -> None:
    site.ask("GET", "/v1/models")
    site.on(site.main, "logrotate --force /etc/logrotate.conf")
    rotated = site.on(site.main, f"ls {ACCESS_LOG}*").split()
    assert len(rotated) > 1, rotated
    before = int(site.on(site.main, f"wc -l < {ACCESS_LOG}"))
    assert site.ask("GET", "/v1/models").status == 200
    assert int(site.on(site.main, f"sleep 1; wc -l < {ACCESS_LOG}")) > before


def test_the_access_log_has_the_client_and_neither_key_nor_prompt(site: Site) -> None:
    secret_prompt = "the-prompt-is-nobodys-business"
    site.ask("POST", "/v1/completions", {"model": MODEL, "prompt": secret_prompt, "max_tokens": 1})
    site.ask("GET", f"/v1/models?key={site.key}")
    text = site.on(site.main, "sleep 1; cat /var/log/redoubt/*.log /var/log/nginx/*.*l* 2>/dev/null", check=False)
    rows = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert any("demo" in row.values() for row in rows)
    assert site.key not in text
    assert secret_prompt not in text


def test_no_secret_where_others_can_see_it(site: Site) -> None:
    processes = site.on(site.main, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert site.key not in processes
    folders = "/etc /opt /srv /var/log /var/lib/redoubt /tmp /run /home /usr/local"
    # grep ends with 1 when it finds nothing, which is what is hoped for: what it prints is judged.
    search = f"find {folders} -xdev -type f -size -4M -exec grep -lF '{site.key}' {{}} + || true"
    assert site.on(site.main, search).strip() == ""  # the gateway knows its digest, not even root finds the key
    site.on(site.main, f"echo '{site.key}' > /home/leak")
    assert site.on(site.main, f"{search}; rm /home/leak").strip() == "/home/leak"
    for log in site.logs:
        assert site.key not in log.read_text(errors="replace"), log


def test_a_damaged_weight_byte_is_found_and_named(site: Site) -> None:
    folder = site.on(site.main, f"ls -d /srv/redoubt/models/{MODEL}/*/").split()[0]
    file = folder + "model.safetensors"
    site.on(site.main, f"cat > /tmp/flip.py <<'EOF'\n{FLIP}EOF\npython3 /tmp/flip.py {file}")
    try:
        run = site.play("playbooks/verify.yml")
        assert run.status != 0
        bad = {c["id"]: c for c in site.verdict()["hosts"][site.main]["checks"] if not c["ok"]}
        assert "model.safetensors" in bad[f"weights.{MODEL}"]["detail"]
        assert "model.safetensors" in run.output
    finally:
        site.on(site.main, f"python3 /tmp/flip.py {file}")
    assert site.play("playbooks/verify.yml").status == 0


def test_container_logs_are_limited(site: Site) -> None:
    text = site.on(site.main, "docker inspect --format '{{json .HostConfig.LogConfig}}' $(docker ps -q)")
    rows = [json.loads(line) for line in text.splitlines()]
    assert len(rows) >= 5
    assert all(row["Type"] == "local" or row["Config"].get("max-size") for row in rows), rows
