"""Folders that stages hand to each other: they appear whole or not at all, and every reader checks them.

A folder is sealed by its manifest, which names every file's size and hash, and its own: one changed bit
anywhere, in the manifest too, is found.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, Self

from prottune import __version__
from prottune.addresses import is_address
from prottune.errors import ArtifactError, ConfigError

MANIFEST_FILE = "manifest.json"
_FORMAT = "prottune/2"
_UNBOUND_FORMAT = "prottune/1"
"""Of folders made before manifests carried their own hash: read as before, their files are checked."""
_READABLE = 0o644
"""Mode of every file of a finished folder: a later step may run as another user."""
_PAGES = (".html", ".md")
"""Files for people; they may name the hour, so they are checked but do not enter the digest."""


@dataclass(frozen=True)
class Manifest:
    """What a finished folder holds and what made it."""

    stage: str
    settings: dict[str, Any]
    inputs: dict[str, str]
    """Name of each input -> its digest or URI."""
    facts: dict[str, Any]
    """What readers need beside the files, for example `labels` and `label_set`."""
    files: dict[str, dict[str, Any]]
    """Path inside the folder -> {"bytes": size, "sha256": hex}."""
    versions: dict[str, str] = field(default_factory=dict)
    format: str = _FORMAT
    sha256: str = ""
    """Of the manifest's own bytes with this field empty; set when it is sealed."""

    @classmethod
    def parse(cls, data: bytes, place: str) -> Self:
        """Read a manifest's bytes; `place` is what a refusal calls them.

        Raises: ArtifactError if they are no manifest, of another format, or not bit for bit what was sealed.
        """
        try:
            manifest = cls(**json.loads(data))
        except (ValueError, TypeError) as error:
            raise ArtifactError(f"{place}: not a manifest ({error})") from error
        if manifest.format not in (_FORMAT, _UNBOUND_FORMAT):
            raise ArtifactError(f"{place}: format {manifest.format!r}, expected {_FORMAT!r}")
        if manifest.format == _FORMAT and data != manifest.sealed():
            raise ArtifactError(f"{place}: damaged, its bytes do not have the SHA-256 that it names")
        return manifest

    def sealed(self) -> bytes:
        """The one spelling of this manifest as a file, its own hash in it."""
        content = json.loads(
            json.dumps(asdict(self) | {"sha256": ""})
        )  # as JSON gives it back: keys are words
        sha256 = hashlib.sha256(_spelled(content)).hexdigest()
        return _spelled(content | {"sha256": sha256})

    def expect(self, stage: str, place: str) -> None:
        """Refuse the folder of another stage; `place` is what the refusal calls it.

        Raises: ArtifactError.
        """
        if self.stage != stage:
            raise ArtifactError(f"{place}: made by stage {self.stage!r}, expected one made by {stage!r}")

    @property
    def digest(self) -> str:
        """SHA-256 over names and hashes of all data files: equal contents have equal digests."""
        content = {name: entry["sha256"] for name, entry in self.files.items() if not name.endswith(_PAGES)}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass
class Draft:
    """A folder in the making: write into `path`, add to `facts`; it is sealed when the block ends well."""

    path: Path
    facts: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)


def check_vacant(target: Path) -> None:
    """Refuse a place where something lies already, or where a finished folder could not be put.

    Raises: ConfigError if `target` exists and is not an empty folder, as a finished folder is never changed;
        if it is an address, a link or a mount, which no folder can take the place of.
    """
    if is_address(target):
        raise ConfigError(f"{target}: an address; expected a folder of this machine")
    if target.name in ("", "..") or target.is_symlink() or target.is_mount():
        raise ConfigError(
            f"{target}: a link, a mount or no name of its own; name a new folder, say one in it"
        )
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(
            f"{target} exists already and a finished folder is never changed; name another place or remove it"
        )


@contextmanager
def new_folder(
    target: Path, stage: str, settings: object, inputs: Mapping[str, str] | None = None
) -> Iterator[Draft]:
    """Yield a draft that becomes `target`, sealed with a manifest, only if the block ends well.

    `settings` is the stage's frozen dataclass; `inputs` maps each input's name to its digest or URI.

    Raises: ConfigError if nothing can be made at `target` (`check_vacant`).
    """
    check_vacant(target)
    scratch = target.with_name(f"{target.name}.partial")
    shutil.rmtree(scratch, ignore_errors=True)  # left by an attempt that was killed
    try:
        scratch.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(f"{target}: cannot be made ({error.strerror}); name another place") from error
    draft = Draft(scratch, inputs=dict(inputs or {}))
    try:
        yield draft
        _seal(draft, stage, settings)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    os.replace(scratch, target)
    _flush(target.parent)


def read_manifest(folder: Path, stage: str | None = None) -> Manifest:
    """Check a finished folder byte by byte and return its manifest.

    Raises: ArtifactError if the manifest is missing or unreadable, if the folder was made by another
        stage than `stage`, or if a file is missing, has another size or another hash.
    """
    manifest = manifest_of(folder)
    if stage is not None:
        manifest.expect(stage, str(folder))
    for name, entry in manifest.files.items():
        _check_file(folder / name, entry)
    return manifest


def manifest_of(folder: Path) -> Manifest:
    """Return a finished folder's manifest without reading the files that it names.

    Raises: ArtifactError if it is missing or unreadable.
    """
    path = folder / MANIFEST_FILE
    try:
        return Manifest.parse(path.read_bytes(), str(path))
    except (FileNotFoundError, NotADirectoryError):
        raise ArtifactError(f"{folder}: no {MANIFEST_FILE}; this is not a finished prottune folder") from None


def _check_file(path: Path, entry: Mapping[str, Any]) -> None:
    if not path.is_file():
        raise ArtifactError(f"{path}: missing, though the manifest lists it")
    if path.stat().st_size != entry["bytes"]:
        raise ArtifactError(f"{path}: {path.stat().st_size} bytes, expected {entry['bytes']}")
    if (found := file_sha256(path)) != entry["sha256"]:
        raise ArtifactError(f"{path}: damaged, SHA-256 {found}, expected {entry['sha256']}")


def _seal(draft: Draft, stage: str, settings: object) -> None:
    files = {}
    for path in sorted(path for path in draft.path.rglob("*") if path.is_file()):
        name = path.relative_to(draft.path).as_posix()
        path.chmod(_READABLE)
        files[name] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        _flush(path)
    manifest = Manifest(
        stage=stage,
        settings=asdict(settings) if is_dataclass(settings) and not isinstance(settings, type) else {},
        inputs=draft.inputs,
        facts=draft.facts,
        files=files,
        versions={"prottune": __version__},
    )
    path = draft.path / MANIFEST_FILE
    path.write_bytes(manifest.sealed())
    _flush(path)
    _flush(draft.path)


def _spelled(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def _flush(path: Path) -> None:
    """Make a file or a folder's entries survive a power cut (fsync)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
