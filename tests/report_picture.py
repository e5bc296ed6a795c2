"""The picture of an evaluation report for the docs: `python tests/report_picture.py PAGE PICTURE`.

Headline and scores stand on the left, probabilities and the shortest mistake that is explained on the right.
"""

import base64
import io
import sys
import tempfile
from pathlib import Path

from chromium import browser
from PIL import Image

WIDTH = 1400
ARRANGE = """(() => {
  const section = name => [...document.querySelectorAll("section")]
    .find(one => one.querySelector("h2").textContent == name);
  const left = document.createElement("div"), right = document.createElement("div");
  const main = document.querySelector("main");
  left.append(...main.querySelectorAll("h1, .summary, main > .tiles, nav"));
  left.append(...["Decision", "Scores on the official test", "Scores on the gate split"].map(section));
  const mistakes = section("The surest mistakes");
  const shown = [...mistakes.querySelectorAll("details")]
    .sort((a, b) => a.querySelectorAll("text").length - b.querySelectorAll("text").length)[0];
  shown.open = true;
  mistakes.replaceChildren(mistakes.querySelector("h2"), mistakes.querySelector("p"), shown);
  right.append(...["Do the probabilities mean what they say?", "Unlike the training proteins"].map(section));
  right.append(mistakes);
  main.replaceChildren(left, right);
  main.style = "max-width: none; display: grid; grid-template-columns: 1fr 1fr; gap: 1.5rem; padding: 1rem";
  return Math.ceil(Math.max(left.scrollHeight, right.scrollHeight)) + 24;
})()"""


def main(report: Path, picture: Path) -> None:
    """Take the picture, in light colours."""
    with tempfile.TemporaryDirectory() as folder, browser(Path(folder) / "profile") as page:
        page.emulate(scheme="light")
        page.resize(WIDTH, 1000)
        page.open(report.absolute())
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": page.ask(ARRANGE), "scale": 1}
        taken = page.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        shot = Image.open(io.BytesIO(base64.b64decode(taken["data"])))
        shot.convert("RGB").quantize(256).save(picture, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
