"""From what was typed to what ansible-playbook is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.playbooks import UsageError, absolute, available, command_line, nearest, prompts, resolve


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "playbooks").mkdir()
    for name in ("site.yml", "playbooks/verify.yml", "playbooks/gateway.yml"):
        (tmp_path / name).write_text("[]")
    (tmp_path / "inventories" / "demo").mkdir(parents=True)
    return tmp_path


def test_names_resolve(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "own.yml").write_text("[]")
    assert available(root) == ["gateway", "site", "verify"]
    assert resolve("site", root, elsewhere) == root / "site.yml"
    assert resolve("verify", root, elsewhere) == root / "playbooks" / "verify.yml"
    assert resolve("verify.yml", root, elsewhere) == root / "playbooks" / "verify.yml"
    assert resolve("own.yml", root, elsewhere) == elsewhere / "own.yml"


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("sit", "did you mean `site`?"),
        ("gatway", "did you mean `gateway`?"),
        ("zzz", "there are: gateway, site, verify"),
    ],
)
def test_unknown_names_get_the_nearest(root: Path, typed: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"no playbook `{typed}`; ") as caught:
        resolve(typed, root, root)
    assert hint in str(caught.value)


def test_nearest() -> None:
    assert nearest("Molecul", ["lint", "molecule"]) == "molecule"
    assert nearest("q", ["lint", "molecule"]) is None


def test_the_default_inventory_is_the_demo(root: Path) -> None:
    assert command_line(root / "site.yml", [], ["--check"], root)[:3] == ["-i", "inventories/demo", "--check"]
    assert command_line(root / "site.yml", ["a", "b"], [], root)[:4] == ["-i", "a", "-i", "b"]
    (root / "inventories" / "demo").rmdir()
    with pytest.raises(UsageError, match="name an inventory with -i"):
        command_line(root / "site.yml", [], [], root)


def test_files_named_from_elsewhere_are_found(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    here = tmp_path_factory.mktemp("here")
    for name in ("hosts", "vars.yml", "pass"):
        (here / name).write_text("")
    typed = ["-i", "hosts", "-i", "h1,", "-e", "@vars.yml", "-e", "a=hosts", "--vault-password-file=pass"]
    typed += ["--vault-id", "dev@pass", "--limit", "hosts", "-i", "inventories/demo"]
    assert absolute(typed, here, root) == [
        *("-i", f"{here}/hosts", "-i", "h1,", "-e", f"@{here}/vars.yml", "-e", "a=hosts"),
        *(f"--vault-password-file={here}/pass", "--vault-id", f"dev@{here}/pass", "--limit", "hosts"),
        *("-i", "inventories/demo"),
    ]
    assert absolute(typed, root, root) == typed


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        (["--check"], []),
        (["-K"], ["BECOME password"]),
        (["-bkK"], ["SSH password", "BECOME password"]),
        (["--ask-vault-password"], ["Vault password"]),
        (["--vault-id", "dev@prompt"], ["Vault password"]),
        (["--vault-id=dev@prompt"], ["Vault password"]),
        (["-e", "K"], []),
        (["-i", "K"], []),
    ],
)
def test_options_that_ask_for_a_password(options: list[str], asked: list[str]) -> None:
    assert list(prompts(options)) == asked
