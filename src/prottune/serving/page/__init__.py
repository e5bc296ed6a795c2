"""The page at `/` of the endpoint: paste proteins, see where they live and why.

One response that fetches nothing and talks to its own server only: its script and its style stand inside it,
and the browser runs nothing else, because the policy beside it names their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib import resources

from starlette.responses import HTMLResponse

from prottune.explanation import STRETCH_RESIDUES
from prottune.serving.settings import MODEL_NAME, ServeConfig

MAX_PROTEINS = 50
"""Most proteins that the page takes at a time; `prottune predict` takes files of any size."""

_SCRIPTS = ("fasta.js", "server.js", "tables.js", "residues.js", "answers.js", "page.js")


def page() -> HTMLResponse:
    """Answer a browser with the page and with the rules that it must keep to."""
    content, headers = _content()
    return HTMLResponse(content, headers=headers)


@cache
def _content() -> tuple[str, dict[str, str]]:
    style = _text("prottune.reports", "colors.css") + _text(__name__, "page.css")
    script = "\n".join(['"use strict";', *(_text(__name__, name) for name in _SCRIPTS)])
    parts = {"style": style, "script": script, "facts": json.dumps(_facts())}
    content = _text(__name__, "page.html")
    for name, part in parts.items():
        content = content.replace(f"{{{{ {name} }}}}", part)
    return content, {
        "content-security-policy": _policy(script, style),
        "cache-control": "no-cache",
        "cross-origin-opener-policy": "same-origin",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
    }


def _facts() -> dict[str, object]:
    """What the script must know of the server. Addresses are relative, for a server behind a prefix."""
    return {
        "predict": f"v1/models/{MODEL_NAME}:predict",
        "explain": f"v1/models/{MODEL_NAME}:explain",
        "max_proteins": MAX_PROTEINS,
        "max_megabytes": ServeConfig.max_body_megabytes,
        "stretch_residues": STRETCH_RESIDUES,
    }


def _policy(script: str, style: str) -> str:
    """What a browser may do on the page: run and draw what stands in it, and ask its own server."""
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {_hash(script)}",
            f"style-src {_hash(style)}",
            "img-src data:",  # the empty icon
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",  # nothing that somebody pasted becomes HTML
            "trusted-types 'none'",
        ]
    )


def _hash(text: str) -> str:
    """A text's name in a policy. Source: https://www.w3.org/TR/CSP3/#grammardef-hash-source"""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _text(package: str, name: str) -> str:
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")
