"""Against the real `model_signing`: each side believes what the other signed, and refuses what the other refuses."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml
from ansible.module_utils.artifacts.locking import LEFT_OUT, Choice, lock_folder
from cryptography.hazmat.primitives.asymmetric import ec

from provenance.sign import sign as sign_files
from provenance.signatures import Verdict, judge, locked_files
from tests.support.model_signing_tool import model_signing
from tests.support.preflight_runs import playbook
from tests.support.signing import flipped, identity, key, private_pem, public_pem

PASSPHRASE = "correct horse battery staple 4711"
# Paths that strings and paths sort in another order, and one that is not ASCII.
FILES = {"a.txt": "1", "a/b.txt": "2", "ä.txt": "4", "config.json": "{}", "model.safetensors": "5"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model's folder as it comes from a hub."""
    folder = tmp_path / "tiny"
    for path, content in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    return folder


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def judged(folder: Path, signature: Path, **trusted: list[str]) -> Verdict:
    """Judge a signature against a lock entry made of the folder."""
    entry = lock_folder(folder, "", Choice())
    values = {
        "redoubt_models": [{"name": "tiny", "signature": {"file": str(signature)}}],
        "redoubt_model_locks": {"tiny": entry},
        "redoubt_model_signatures": {"policy": "require", **trusted},
    }
    return judge(values, "", lambda given: given if "-----BEGIN" in given else Path(given).read_text())


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_what_the_tool_signed_with_a_key_is_believed(model: Path, tmp_path: Path, curve: ec.EllipticCurve) -> None:
    private, signature = key(curve), tmp_path / "x.sig"
    pem = write(tmp_path / "key.pem", private_pem(private))
    assert model_signing("sign", "key", model, "--private_key", pem, "--signature", signature)
    assert judged(model, signature, keys=[public_pem(private)]).signers.keys() == {"tiny"}
    assert judged(model, signature, keys=[public_pem(key(curve))]).problems


def test_what_the_tool_signed_with_a_certificate_is_believed(model: Path, tmp_path: Path) -> None:
    root = identity("Model CA", ca=True)
    middle = identity("Issuing CA", root, ca=True)
    leaf, signature = identity("Signer", middle), tmp_path / "x.sig"
    assert model_signing(
        *("sign", "certificate", model, "--signature", signature),
        *("--private_key", write(tmp_path / "key.pem", private_pem(leaf.key))),
        *("--signing_certificate", write(tmp_path / "leaf.pem", leaf.pem)),
        *("--certificate_chain", write(tmp_path / "middle.pem", middle.pem)),
    )
    assert judged(model, signature, authorities=[root.pem]).signers == {"tiny": "certificate 'CN=Signer'"}
    assert judged(model, signature, authorities=[identity("Model CA", ca=True).pem]).problems


def spoil_content(folder: Path, _: Path) -> None:
    (folder / "config.json").write_text("{ }")


def take_away(folder: Path, _: Path) -> None:
    (folder / "a/b.txt").unlink()


def add(folder: Path, _: Path) -> None:
    (folder / "more.py").write_text("x")


def spoil_payload(_: Path, signature: Path) -> None:
    signature.write_text(flipped(signature.read_text(), "dsseEnvelope", "payload"))


def spoil_signature(_: Path, signature: Path) -> None:
    signature.write_text(flipped(signature.read_text(), "dsseEnvelope", "signatures", 0, "sig"))


@pytest.mark.parametrize("fault", [spoil_content, take_away, add, spoil_payload, spoil_signature])
def test_both_refuse_the_same(model: Path, tmp_path: Path, fault: Callable[[Path, Path], None]) -> None:
    private = key()
    public = write(tmp_path / "key.pub", public_pem(private))
    files = locked_files(lock_folder(model, "", Choice()))
    signature = write(tmp_path / "x.sig", sign_files("tiny", files, private))
    look = ("verify", "key", model, "--public_key", public, "--signature", signature)
    assert model_signing(*look)
    assert not judged(model, signature, keys=[public_pem(private)]).problems
    fault(model, signature)
    assert not model_signing(*look)
    assert judged(model, signature, keys=[public_pem(private)]).problems


def sign(folder: Path, signature: Path, *arguments: str, **variables: str) -> CompletedProcess[str]:
    """Run the playbook over the folder, or over `weights_sign_lock`."""
    chosen = {} if "weights_sign_lock" in variables else {"weights_sign_folder": str(folder)}
    fixed = {"weights_sign_name": "tiny", "weights_sign_file": str(signature)}
    return playbook("playbooks/weights_sign.yml", *arguments, **fixed, **chosen, **variables)


def test_the_tool_believes_a_signature_by_a_locks_digests(model: Path, tmp_path: Path) -> None:
    entry = lock_folder(model, "", Choice([], [*LEFT_OUT]))
    locks = write(tmp_path / "lock.yml", yaml.safe_dump({"redoubt_model_locks": {"tiny": entry}}))
    private, signature = key(ec.SECP384R1()), tmp_path / "out/x.sig"
    pem = write(tmp_path / "key.pem", private_pem(private, PASSPHRASE))
    moved = model.rename(tmp_path / "elsewhere")  # the bytes are not read
    secret = write(tmp_path / "vault.yml", f"weights_sign_passphrase: {PASSPHRASE}")
    words = ("-vvvv", "-e", f"@{secret}")
    done = sign(model, signature, *words, weights_sign_key=str(pem), weights_sign_lock=str(locks))
    assert done.returncode == 0
    assert "changed=1" in done.stdout
    assert PASSPHRASE not in done.stdout
    public = write(tmp_path / "key.pub", public_pem(private))
    assert model_signing("verify", "key", moved, "--public_key", public, "--signature", signature)
    before = signature.read_bytes()
    again = sign(model, signature, *words, weights_sign_key=str(pem), weights_sign_lock=str(locks))
    assert "changed=0" in again.stdout
    assert signature.read_bytes() == before


def test_the_tool_believes_a_signature_with_a_certificate(model: Path, tmp_path: Path) -> None:
    root = identity("Model CA", ca=True)
    middle = identity("Issuing CA", root, ca=True)
    leaf, signature = identity("Signer", middle), tmp_path / "x.sig"
    given = {
        "weights_sign_key": str(write(tmp_path / "key.pem", private_pem(leaf.key))),
        "weights_sign_certificate": str(write(tmp_path / "chain.pem", leaf.pem + middle.pem)),
    }
    assert sign(model, signature, "--check", **given).returncode == 0
    assert not signature.exists()
    assert sign(model, signature, **given).returncode == 0
    top = write(tmp_path / "root.pem", root.pem)
    look = ("verify", "certificate", model, "--signature", signature, "--certificate_chain")
    assert model_signing(*look, top)
    stranger = write(tmp_path / "stranger.pem", identity("Model CA", ca=True).pem)
    assert not model_signing(*look, stranger)


@pytest.mark.parametrize(
    ("passphrase", "reason"), [("", "no passphrase is given"), ("wrong horse 0815", "its passphrase is another")]
)
def test_a_key_that_does_not_open_says_why_without_the_passphrase(
    model: Path, tmp_path: Path, passphrase: str, reason: str
) -> None:
    pem = write(tmp_path / "key.pem", private_pem(key(), PASSPHRASE))
    secret = write(tmp_path / "vault.yml", yaml.safe_dump({"weights_sign_passphrase": passphrase or None}))
    done = sign(model, tmp_path / "x.sig", "-vvvv", "-e", f"@{secret}", weights_sign_key=str(pem))
    assert done.returncode != 0
    assert reason in done.stdout
    assert f"weights_sign_key = {pem}" in done.stdout
    assert "wrong horse" not in done.stdout


def test_the_environment_may_give_the_passphrase(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "REDOUBT_SIGN_PASSPHRASE", PASSPHRASE)
    pem = write(tmp_path / "key.pem", private_pem(key(), PASSPHRASE))
    done = sign(model, tmp_path / "x.sig", weights_sign_key=str(pem))
    assert done.returncode == 0
    assert PASSPHRASE not in done.stdout


def test_a_model_without_a_lock_entry_is_not_signed(tmp_path: Path) -> None:
    pem = write(tmp_path / "key.pem", private_pem(key()))
    locks = write(tmp_path / "lock.yml", "redoubt_model_locks: {other: {}}")
    done = sign(tmp_path, tmp_path / "x.sig", weights_sign_key=str(pem), weights_sign_lock=str(locks))
    assert done.returncode != 0
    assert "redoubt_model_locks.tiny" in done.stdout
    assert not (tmp_path / "x.sig").exists()
