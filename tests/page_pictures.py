"""Take the pictures of the endpoint's page: `python tests/page_pictures.py http://127.0.0.1:8080/ docs`.

A server must be running at the address. The example is asked, and its first protein explained.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from chromium import Browser, browser
from PIL import Image

IS_ANSWERED = (
    "document.querySelectorAll('.answered').length == 3 && document.querySelector('#progress').hidden"
)
HEIGHT = "document.documentElement.scrollHeight"


def take_pictures(address: str, folder: Path) -> None:
    """The whole page on a light screen, and its answers on a dark phone."""
    with tempfile.TemporaryDirectory() as scratch, browser(Path(scratch) / "profile") as tab:
        show_answers(tab, address, "light", 1000)
        tab.resize(1000, tab.ask(HEIGHT))
        write_picture(folder / "serving-page.png", tab)
        show_answers(tab, address, "dark", 360)
        tab.resize(360, 1100, scale=2)
        tab.ask("document.querySelector('.answered').scrollIntoView()")
        write_picture(folder / "serving-page-phone.png", tab)


def show_answers(tab: Browser, address: str, scheme: str, width: int) -> None:
    """Ask the example and explain its first protein."""
    tab.emulate(scheme=scheme)
    tab.resize(width, 900)
    tab.open(address)
    tab.click("#example")
    tab.until(IS_ANSWERED)
    tab.click(".ask button")
    tab.until("document.querySelector('.residues')", seconds=120)
    tab.ask("document.activeElement.blur()")


def write_picture(path: Path, tab: Browser) -> None:
    """Write what is seen, in few colours: a third of the bytes, and no difference to the eye."""
    seen = Image.open(io.BytesIO(tab.picture())).convert("RGB")
    seen.quantize(256, Image.Quantize.MAXCOVERAGE).save(path, optimize=True)


if __name__ == "__main__":
    take_pictures(sys.argv[1], Path(sys.argv[2]))
