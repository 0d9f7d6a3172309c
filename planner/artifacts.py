"""The images and weights that one host needs: taken from the lock, judged once each."""

from __future__ import annotations

from collections.abc import Sequence

from planner import sources
from planner.document import Document, Image, Lock, Model
from planner.problems import Problems


class Artifacts:
    """What is needed so far: images by key, weights by model; problems are noted as it grows."""

    def __init__(self, document: Document, problems: Problems) -> None:
        self.document = document
        self.problems = problems
        self.images: dict[str, Image] = {}
        self.weights: dict[str, Lock] = {}
        self._unknown: dict[str, None] = {}

    def warn_of_unknown_digests(self) -> None:
        """Warn where a plan that is only shown has no real digests yet."""
        if self._unknown:
            listed = ", ".join(sorted(self._unknown))
            self.problems.warn(f"installing would be refused, since these have no real digests yet: {listed}")

    def lock(self, model: Model) -> Lock | None:
        """Return the model's manifest; None, with the problem noted, where there is none."""
        lock = self.document.locks.get(model.name)
        if lock is None:
            where = f"redoubt_model_locks.{model.name}"
            why = "the model has no manifest entry, so its files cannot be verified"
            self.problems.add(where, why, "add the entry with its revision and files, or remove the model")
            return None
        if model.revision is not None and model.revision != lock.revision:
            why = f"the lock holds revision {lock.revision}"
            where = f"{model.where}.source.revision"
            self.problems.add(where, why, "lock this revision or write that one", model.revision)
        self.judge_placeholders(lock)
        return lock

    def judge_placeholders(self, lock: Lock) -> None:
        """Note a manifest that holds placeholders for digests."""
        digests = [lock.revision, *(str(file["sha256"]) for file in lock.files)]
        self._check_placeholders(f"redoubt_model_locks.{lock.name}", digests)

    def image(self, key: str, where: str | None = None) -> Image | None:
        """Return an image and count it as needed; None, with the problem noted at `where`, where there is none."""
        image = self.document.images.get(key)
        if image is None:
            place = where or f"redoubt_images.{key}"
            known = ", ".join(sorted(self.document.images)) or "none"
            why = f"there is no image `{key}` in redoubt_images (known: {known})"
            self.problems.add(place, why, "add the image's entry from the lock", key)
            return None
        if key not in self.images:
            self.images[key] = image
            self._check_image(image)
        return image

    def _check_image(self, image: Image) -> None:
        where = f"redoubt_images.{image.key}"
        source = sources.entry(self.document.sources, self.document.depot).get("images", "")
        if image.digest is None and image.config_digest is None:
            if self.document.plan_only:
                self._unknown.setdefault(where)
            else:
                why = f"{image.ref} is named by tag only, and a tag can be moved"
                fix = "make the lock (./redoubt play lock), or add `digest` (registry) or `config_digest` (archive)"
                self.problems.add(where, why, fix)
        elif source in ("depot", "registry") or source.startswith(sources.MIRRORED):
            if image.digest is None and self.document.sources.get("images") == "depot":
                why = "the depot is asked by manifest digest, and the lock has none for this image"
                self.problems.add(f"{where}.digest", why, "make the lock anew: ./redoubt play lock")
            elif image.digest is None:
                why = "a registry is asked by manifest digest, which is missing"
                self.problems.add(f"{where}.digest", why, "add `digest` from the lock, or bring archives")
        elif source and image.archive is None:
            why = f"redoubt_sources.images is {source}, but the image has no archive"
            fix = "add `archive` and `archive_sha256`, or use the source `registry`"
            self.problems.add(f"{where}.archive", why, fix)
        if image.tag == "latest":
            self.problems.add(f"{where}.tag", "`latest` says nothing about the version", "write the version", image.tag)
        self._check_placeholders(where, [image.digest, image.config_digest, image.archive_sha256])

    def _check_placeholders(self, where: str, digests: Sequence[str | None]) -> None:
        if not any(digest and is_placeholder(digest) for digest in digests):
            return
        if self.document.plan_only:
            self._unknown.setdefault(where)
        else:
            self.problems.add(where, "it holds placeholders instead of real digests", "make the lock for this site")


def is_placeholder(digest: str) -> bool:
    """Say whether a digest is one repeated digit, which stands where a real one is to be written."""
    return len(set(digest.removeprefix("sha256:"))) == 1
