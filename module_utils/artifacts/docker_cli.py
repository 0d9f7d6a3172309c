"""The Docker engine of this host through its command line client, which every host has that runs it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .errors import Refusal
from .image_list import Found
from .transfer import CHUNK, Reader, Tick, write_all

# So much of an archive is kept back until the whole of it is proved; its last member and padding are in there.
HELD_BACK = 1024 * 1024

Watch = Callable[[bytes], None]
Judge = Callable[[], list[str]]


class NoEngine(Refusal):
    """There is no Docker client on this host, or no engine answers it."""


class Docker:
    """One engine. Every method raises Refusal (NoEngine when it does not answer)."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout

    def inspect(self, refs: Sequence[str]) -> dict[str, Found | None]:
        """Look at images, in one call if all are there."""
        if not refs:
            return {}
        status, output, errors = self._run(["image", "inspect", *refs], 60)
        if status == 0:
            documents: list[dict[str, Any]] = json.loads(output)
            return {ref: Found.of(document) for ref, document in zip(refs, documents)}
        if "no such image" not in errors.lower():
            raise NoEngine(f"docker image inspect fails: {errors or output}; is docker.service running?")
        if len(refs) == 1:
            return {refs[0]: None}
        return {ref: found for one in refs for ref, found in self.inspect([one]).items()}

    def root(self) -> Path:
        """Return the folder where the engine keeps its images."""
        status, output, errors = self._run(["info", "--format", "{{.DockerRootDir}}"], 60)
        if status:
            raise NoEngine(f"docker info fails: {errors or output}; is docker.service running?")
        return Path(output.strip())

    def pull(self, pinned: str) -> None:
        """Fetch name@digest; the engine refuses other bytes than the digest's."""
        self._must(["pull", "--quiet", pinned], self.timeout)

    def tag(self, source: str, ref: str) -> None:
        """Give an image a name."""
        self._must(["image", "tag", source, ref], 60)

    def remove(self, ref: str) -> None:
        """Take a name, or an image that has no name, away."""
        self._must(["image", "rm", ref], 120)

    def load(self, reader: Reader, sha256: str | None, watch: Watch, judge: Judge, tick: Tick) -> None:
        """Feed an archive to the engine, hashing it on the way.

        Every piece goes past ``watch``. The end is kept back until the SHA-256 fits and ``judge`` finds no problem: an
        engine that does not get the end loads nothing. Raises Refusal.
        """
        with tempfile.TemporaryFile() as output:
            process = self._start(["load", "--quiet"], output)
            expired = threading.Event()

            def expire() -> None:
                expired.set()
                process.kill()

            timer = threading.Timer(self.timeout, expire)
            timer.start()
            try:
                complete = self._feed(process, reader, sha256, watch, judge, tick)
                process.wait()
            finally:
                timer.cancel()
                # Killed, not closed: a client that sees the end of its input would send it as complete.
                process.kill()
                process.wait()
                if process.stdin:
                    with contextlib.suppress(OSError):
                        process.stdin.close()
            output.seek(0)
            text = output.read().decode(errors="replace").strip()
        if expired.is_set():
            raise Refusal(f"still not loaded after {self.timeout:.0f} s (images_timeout)")
        if process.returncode or not complete:
            raise Refusal(f"docker load fails: {text or f'exit {process.returncode}'}")

    def _feed(
        self,
        process: subprocess.Popen[bytes],
        reader: Reader,
        sha256: str | None,
        watch: Watch,
        judge: Judge,
        tick: Tick,
    ) -> bool:
        """Send an archive; return whether all of it was taken. Raises Refusal before the end is sent."""
        pipe = process.stdin
        assert pipe is not None  # noqa: S101 - PIPE was asked for; this is for the type checker
        digest = hashlib.sha256()
        held: deque[bytes] = deque()
        held_size = 0
        buffer = memoryview(bytearray(CHUNK))
        try:
            while got := reader.readinto(buffer):
                piece = bytes(buffer[:got])
                digest.update(piece)
                watch(piece)
                held.append(piece)
                held_size += got
                while held_size - len(held[0]) >= HELD_BACK:
                    held_size -= len(held[0])
                    write_all(pipe.fileno(), memoryview(held.popleft()))
                tick(got)
            if sha256 and digest.hexdigest() != sha256:
                raise Refusal(f"expected sha256 {sha256}, found {digest.hexdigest()}")
            problems = judge()
            if problems:
                raise Refusal(problems)
            while held:
                write_all(pipe.fileno(), memoryview(held.popleft()))
            pipe.close()
        except BrokenPipeError:
            return False  # the client has ended; the caller shows its message
        return True

    def _start(self, words: Sequence[str], output: Any) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                ["docker", *words], stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, bufsize=0
            )
        except FileNotFoundError as error:
            raise NoEngine("there is no docker command on this host; run the role docker first") from error

    def _must(self, words: Sequence[str], timeout: float) -> None:
        status, output, errors = self._run(words, timeout)
        if status:
            raise Refusal(f"docker {' '.join(words)} fails: {errors or output}")

    def _run(self, words: Sequence[str], timeout: float) -> tuple[int, str, str]:
        try:
            done = subprocess.run(
                ["docker", *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                check=False,
            )
        except FileNotFoundError as error:
            raise NoEngine("there is no docker command on this host; run the role docker first") from error
        except subprocess.TimeoutExpired as error:
            raise Refusal(f"docker {' '.join(words)} took longer than {timeout:.0f} s") from error
        return done.returncode, done.stdout, done.stderr.strip()
