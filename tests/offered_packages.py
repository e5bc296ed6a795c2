"""Where this machine's pip finds packages, as addresses that a build inside a container can reach.

A folder of this machine is offered over HTTP on the loopback, under a number instead of its name.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

_SETTINGS = {
    "index-url": "PIP_INDEX_URL",
    "extra-index-url": "PIP_EXTRA_INDEX_URL",
    "find-links": "PIP_FIND_LINKS",
}


def places_of_packages(listing: str) -> dict[str, list[str]]:
    """What `pip config list` says of places: variable -> folders and addresses; the environment wins."""
    said = dict(line.partition("=")[::2] for line in listing.splitlines())
    found: dict[str, list[str]] = {}
    for key, variable in _SETTINGS.items():
        for section in ("global", "install", ":env:"):
            if value := said.get(f"{section}.{key}"):
                found[variable] = ast.literal_eval(value).split()
    return found


def places_here() -> dict[str, list[str]]:
    """The same of this machine."""
    words = [sys.executable, "-m", "pip", "config", "list"]
    return places_of_packages(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


@contextmanager
def offered_packages(places: Mapping[str, list[str]], folder: Path) -> Iterator[dict[str, str]]:
    """Yield the settings that a build needs for these places, as long as the block lasts."""
    handler = partial(_Quiet, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield addresses(places, folder, f"http://127.0.0.1:{server.server_address[1]}")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def addresses(places: Mapping[str, list[str]], folder: Path, url: str) -> dict[str, str]:
    """Put a link to each folder into one that is served; an address stays as it is."""
    links = 0
    answer: dict[str, list[str]] = {}
    for name, found in places.items():
        for place in found:
            parts = urlsplit(place)
            if parts.scheme not in ("", "file"):
                answer.setdefault(name, []).append(place)
                continue
            path = Path(unquote(parts.path))
            # pages of an index lead to files beside it, as ../../files/...
            shown, rest = (path, "") if name == "PIP_FIND_LINKS" else (path.parent, path.name)
            (folder / str(links)).symlink_to(shown)
            answer.setdefault(name, []).append(f"{url}/{links}/{rest}")
            links += 1
    return {name: " ".join(found) for name, found in answer.items()}


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass
