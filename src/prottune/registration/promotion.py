"""Which version serves: promotion and rollback, one at a time, and repeated without harm."""

from __future__ import annotations

from dataclasses import dataclass

from prottune.errors import ConfigError
from prottune.registration.provenance import DECISION_TAG, ROLLED_BACK_TAG
from prottune.registration.registry import MODEL_NAME, Alias, Registry, registry


@dataclass(frozen=True, kw_only=True)
class PromoteReport:
    """Which version serves now, and why."""

    promoted: bool
    reason: str
    champion: str
    previous: str
    """Version that `rollback` would bring back; empty if there is none."""


def promote(version: str, compared_with: str, *, overrule: bool = False) -> PromoteReport:
    """Make a version the champion, unless the champion is no longer the one it was compared with.

    `compared_with` is the champion's version that the gate saw, empty if there was none. A version that the
    gate held, or that was rolled back, is promoted only with `overrule`. Repeating a promotion that went
    through changes nothing.

    Raises: ConfigError if there is no such version.
    """
    store = registry()
    with store.lock():
        if (found := store.version(version)) is None:
            raise ConfigError(f"model {MODEL_NAME!r} has no version {version!r}; register it first")
        version = str(found.version)
        champion, previous = _version_of(store, "champion"), _version_of(store, "previous")
        if champion == version:
            return PromoteReport(
                promoted=True, reason="it is the champion already", champion=champion, previous=previous
            )
        reason = _against_promotion(version, found.tags, champion, compared_with, overrule=overrule)
        if reason:
            return PromoteReport(promoted=False, reason=reason, champion=champion, previous=previous)
        if champion:
            store.set_alias("previous", champion)  # first: who dies here has lost nothing that serves
        store.set_alias("champion", version)
        if ROLLED_BACK_TAG in found.tags:
            store.untag(version, ROLLED_BACK_TAG)
    reason = f"it takes the place of version {champion}" if champion else "it is the first champion"
    return PromoteReport(promoted=True, reason=reason, champion=version, previous=champion or previous)


def _against_promotion(
    version: str, tags: dict[str, str], champion: str, compared_with: str, *, overrule: bool
) -> str:
    """Why a version stays what it is; empty if nothing speaks against making it the champion."""
    if champion != compared_with:
        return (
            f"the champion is now version {champion or 'none'}, but version {version} was compared with "
            f"{compared_with or 'none'}; evaluate it again"
        )
    if overrule:
        return ""
    if tags.get(DECISION_TAG, "promote") != "promote":
        return f"the gate held version {version}; to promote it nevertheless: --overrule"
    if ROLLED_BACK_TAG in tags:
        return f"version {version} was rolled back; to promote it nevertheless: --overrule"
    return ""


def rollback() -> PromoteReport:
    """Let the previous champion serve again, and mark the one that is rolled back.

    Afterwards there is no `previous`: a second rollback, by a nervous hand or a retry, is refused and does
    not bring the bad model back. One that was interrupted is finished by repeating it.

    Raises: ConfigError if there is no previous champion.
    """
    store = registry()
    with store.lock():
        champion, previous = _version_of(store, "champion"), _version_of(store, "previous")
        if champion and champion == previous:  # an interrupted rollback, or promotion: nothing is before it
            store.remove_alias("previous")
            previous = ""
        if not champion or not previous:
            raise ConfigError(
                f"nothing to roll back to: champion {champion or 'none'}, previous {previous or 'none'}; "
                "nothing was changed"
            )
        store.tag(champion, ROLLED_BACK_TAG, "true")
        store.set_alias("champion", previous)
        store.remove_alias("previous")
    reason = f"version {champion} was rolled back"
    return PromoteReport(promoted=True, reason=reason, champion=previous, previous="")


def _version_of(store: Registry, alias: Alias) -> str:
    found = store.version_with_alias(alias)
    return str(found.version) if found else ""
