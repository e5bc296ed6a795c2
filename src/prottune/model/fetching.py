"""Where a base model lies (a folder, an s3:// prefix, the Hugging Face Hub) -> a folder on this machine."""

from __future__ import annotations

import re
from pathlib import Path

from prottune.errors import ConfigError, StorageError
from prottune.records import TRAINING_PROTEINS_FILE

HUB_FILES = (
    *("config.json", "vocab.txt", "tokenizer.json"),
    *("*.safetensors", "*.safetensors.index.json", "pytorch_model.bin"),
    TRAINING_PROTEINS_FILE,
)
"""All that is read of a published model; no code, no other formats."""


def local_folder(base_model: str, revision: str, scratch: Path) -> tuple[Path, str]:
    """Bring a base model to this machine; returns its folder and, for a Hub name, the revision fetched.

    Raises: ConfigError if the name is neither a folder here, nor a URI, nor a Hub name with a pinned
        revision; StorageError if the place it names does not answer.
    """
    from prottune.addresses import s3_uri
    from prottune.storage import fetch_folder

    uri = s3_uri(base_model)
    if uri.startswith(("s3://", "file://")):
        return fetch_folder(uri, scratch / "fetched"), ""
    folder = Path(base_model).expanduser()
    if folder.is_dir():
        return folder, ""
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", base_model):
        return _from_hub(base_model, revision), revision
    raise ConfigError(
        f"base_model={base_model!r}: no such folder, and no Hub name (owner/name), s3:// prefix or preset "
        "(tiny, small)"
    )


def _from_hub(name: str, revision: str) -> Path:
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise ConfigError(
            f"base_revision={revision!r}: a Hub model needs the 40 hex digits of a commit, no branch or tag"
        )
    import huggingface_hub
    from httpx2 import HTTPError  # what huggingface_hub fetches with, and lets through
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        return Path(
            huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=list(HUB_FILES))
        )
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ConfigError(
            f"base_model={name!r} at {revision}: not on the Hugging Face Hub, and no folder of that name here"
        ) from error
    except (OSError, HTTPError) as error:  # no network, no cached copy, a server that fails
        raise StorageError(
            f"https://huggingface.co/{name}: could not fetch revision {revision} "
            f"({type(error).__name__}); without network, name a folder or an s3:// prefix that holds it"
        ) from error
