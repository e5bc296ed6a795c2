"""The endpoint's page in a real browser, used as people use it: paste, predict, explain, download, mend."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from chromium import PROGRAM, Browser, browser, is_installed
from tiny_model import write_tiny_model

from prottune.model.attribution import Attribution
from prottune.prediction.tables import table_schema
from prottune.serving.guard import Guard
from prottune.serving.page import MAX_PROTEINS
from prottune.serving.predictor import LocationPredictor
from prottune.serving.routes import application
from prottune.serving.settings import ServeConfig
from tests.serving.letters import LETTERS, LettersPredictor

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:ORJSONResponse is deprecated"),
]

NUCLEAR, BOUND, LONG = "KKKKKKKKGA", "LLLLLLLLLLLLWG", "S" * 60
THREE = f">sp|P1|ONE_TEST first\n{NUCLEAR}\n>P2 second\n{BOUND}\n>P3\n{LONG}\n"
HOSTILE = "><img/src=x/onerror=alert(1)> <script>alert(2)</script>\"'&amp;"
CARDS = """[...document.querySelectorAll(".card")].map(card => ({
  name: card.querySelector("h3").textContent,
  refused: card.classList.contains("refused"),
  text: card.innerText,
  ranking: [...card.querySelectorAll(".ranking li")].map(row =>
    [row.querySelector(".place").textContent, row.querySelector(".number").textContent]),
}))"""
IS_DONE = "document.querySelector('#progress').hidden && document.querySelector('#status').textContent != ''"
FOCUSED = "document.activeElement.id || document.activeElement.textContent"
LIGHTNESS = """color => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d");
  canvas.fillStyle = color;
  canvas.fillRect(0, 0, 1, 1);
  const [r, g, b] = canvas.getImageData(0, 0, 1, 1).data;
  return (r + g + b) / 765;
}"""


class Front:
    """Stands before the endpoint as a proxy does: it may want a token, answer in its stead, or hold on."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.token = ""
        self.replies: list[tuple[int, dict[str, str], str]] = []
        self.open = threading.Event()
        self.open.set()
        self.asked: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        self.asked.append(scope["path"])
        brought = dict(scope["headers"]).get(b"authorization", b"").decode()
        if self.token and brought != f"Bearer {self.token}":
            await _reply(send, 401, {"www-authenticate": "Bearer"}, '{"error": "token: missing or wrong"}')
        elif self.replies:
            await _reply(send, *self.replies.pop(0))
        else:
            while not self.open.is_set():
                message = await receive()  # until the client has gone
                if message["type"] == "http.disconnect":
                    return
            await self._app(scope, receive, send)


async def _reply(send: Any, status: int, headers: dict[str, str], words: str) -> None:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": words.encode()})


def attribute(sequence: str, location: str, _before_each: Callable[[], None]) -> Attribution:
    """A letter that stands for the location speaks for it, W against it; residues after 50 are not read, and
    where there is a G the scores do not add up."""
    letter = LETTERS[location]
    scores_R = np.array([float(residue == letter) - 2.0 * (residue == "W") for residue in sequence])
    scores_R[50:] = np.nan
    left_out = (51, len(sequence)) if len(sequence) > 50 else None
    difference = float(np.nansum(scores_R)) + 9.0 * ("G" in sequence)
    return Attribution(location, sequence, scores_R, left_out, difference, steps=32)


@contextmanager
def running(app: Any) -> Iterator[str]:
    """A server for the application, on a port of its own."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def letters() -> LettersPredictor:
    return LettersPredictor(tells_membrane=True)


@pytest.fixture(scope="module")
def server(letters: LettersPredictor) -> Iterator[tuple[Front, str]]:
    config = ServeConfig(max_residues=120)
    model = LocationPredictor(letters, config, "7", attribute=attribute)
    model.load()
    front = Front(Guard(application(model, config), config))
    with running(front) as address:
        yield front, address
    asyncio.run(model.close())


@pytest.fixture
def front(server: tuple[Front, str]) -> Iterator[Front]:
    """The proxy, as it was made."""
    front, _ = server
    front.token, front.replies, front.asked = "", [], []
    yield front
    front.open.set()


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser; where there is none, these tests are not run here."""
    if not is_installed():
        refuse = pytest.fail if PROGRAM in os.environ.get("PROTTUNE_REQUIRED_TIERS", "") else pytest.skip
        refuse(f"not run here: {PROGRAM}: absent (apt-get install {PROGRAM})")
    with browser(tmp_path_factory.mktemp("browser") / "profile") as opened:
        yield opened


@pytest.fixture
def tab(chrome: Browser, server: tuple[Front, str], front: Front) -> Browser:
    """The page, just opened on a light screen."""
    chrome.emulate(scheme="light")
    chrome.resize(1000, 900)
    chrome.open(server[1])
    return chrome


def predict(tab: Browser, text: str) -> list[Any]:
    """Paste a text, press Predict, and read the cards."""
    paste(tab, text)
    tab.click("#predict")
    return answered(tab)


def paste(tab: Browser, text: str) -> None:
    tab.ask("document.querySelector('#proteins').select()")
    tab.write(text)


def answered(tab: Browser) -> list[Any]:
    tab.until(IS_DONE)
    cards: list[Any] = tab.ask(CARDS)
    return [{**card, "text": card["text"].replace("\u00a0", " ")} for card in cards]


def words(tab: Browser, selector: str) -> str:
    return str(tab.ask(f"document.querySelector({json.dumps(selector)}).innerText")).replace("\u00a0", " ")


def refuse_once(status: int, error: str, **headers: str) -> tuple[int, dict[str, str], str]:
    return (
        status,
        {name.replace("_", "-"): value for name, value in headers.items()},
        json.dumps({"error": error}),
    )


def test_a_pasted_file_is_answered_with_ranked_places_and_their_figures(tab: Browser) -> None:
    cards = predict(tab, THREE)
    assert [card["name"] for card in cards] == ["P1", "P2", "P3"]
    assert cards[0]["ranking"] == [
        ["Nucleus", "81.8\u00a0%"],  # 9 of 11
        ["Cell membrane", "9.1\u00a0%"],
        ["Lysosome/Vacuole", "9.1\u00a0%"],
    ]
    text = cards[0]["text"]
    assert "sp|P1|ONE_TEST first · 10 residues · bound to a membrane: 0.0 %" in text
    assert "Nucleus 81.8 % confident" in " ".join(text.split())
    assert "3 of 3 proteins answered, 3 confident, model 7." in words(tab, "#status")
    widths = tab.ask("[...document.querySelectorAll('.bar')].slice(0, 2).map(bar => bar.clientWidth)")
    assert widths[0] == pytest.approx(9 * widths[1], rel=0.1)
    assert tab.complaints == []


def test_what_makes_an_answer_doubtful_is_said_in_words(tab: Browser) -> None:
    cards = predict(tab, f"{THREE}>P4\nGA\n")
    unlike, cut, unsure = (card["text"] for card in cards[1:])
    assert "Unlike the proteins that the model was trained with" in unlike
    assert "Only part of its 60 residues was read" in cut
    assert "not confident" in unsure
    assert "look at the next places too" in unsure
    assert not any("Unlike" in text or "Only part" in text for text in (cards[0]["text"], unsure))


def test_what_was_read_of_a_cut_protein_is_said_where_the_server_tells_it(tab: Browser, front: Front) -> None:
    told = {
        "accession": "P3", "location": "Nucleus", "probability": 0.9, "probabilities": {"Nucleus": 0.9},
        "confident": True, "unlike_training": False, "membrane": None, "truncated": True,
        "num_residues": 3000, "left_out": [513, 2488],
    }  # fmt: skip
    front.replies = [(200, {}, json.dumps({"predictions": [told], "model_version": "7"}))]
    (card,) = predict(tab, f">P3\n{LONG}\n")
    assert "Only residues 1 to 512 and 2,489 to 3,000 of 3,000 were read." in card["text"]
    assert "membrane" not in card["text"]


def test_one_bare_sequence_and_a_final_stop_are_taken(tab: Browser) -> None:
    (card,) = predict(tab, "  >P1 indented\n  KKK\n")
    assert (card["name"], card["ranking"][0][0]) == ("P1", "Nucleus")
    (card,) = predict(tab, " kkkkkk\n KK* \n")
    assert card["name"] == "sequence"
    assert "8 residues" in card["text"]
    assert "the final stop (*) was taken off" in card["text"]


def test_the_example_is_one_click(tab: Browser) -> None:
    tab.click("#example")
    assert [card["name"] for card in answered(tab)] == ["P01308", "P62805", "P99999"]
    assert tab.ask(FOCUSED) == "predict"
    tab.click("#clear")
    assert tab.ask("document.querySelector('#proteins').value") == ""


@pytest.mark.parametrize(
    ("text", "said", "selected"),
    [
        ("", "Line 1: there is no protein yet", ""),
        ("KKK\n>P1\nKKK", "Line 1: text before the first header", "KKK"),
        (">P1\nKKK\n> P2\nKKK", "Line 3: a header without a name", "> P2"),
        (">P1\n>P2\nKKK", "Line 1: P1 has no sequence", ">P1"),
        ("KKK\n\nLLL", "Line 3: text after an empty line", "LLL"),
        (">P\nK\n" * (MAX_PROTEINS + 1), "51 proteins, expected at most 50", ">P"),
    ],
)
def test_what_is_no_fasta_is_told_with_its_line_before_anything_is_sent(
    tab: Browser, front: Front, text: str, said: str, selected: str
) -> None:
    paste(tab, text)
    tab.click("#predict")
    assert said in words(tab, "#mistake")
    assert tab.ask("getSelection().toString()") == selected
    assert tab.ask(FOCUSED) == "proteins"
    assert front.asked == []


def test_fifty_proteins_are_answered_in_their_order(tab: Browser, front: Front) -> None:
    cards = predict(tab, "".join(f">P{n}\n{'K' * (n % 9 + 1)}\n" for n in range(MAX_PROTEINS)))
    assert [card["name"] for card in cards] == [f"P{n}" for n in range(MAX_PROTEINS)]
    assert not any(card["refused"] for card in cards)
    assert len(front.asked) > 1, "so that answers appear as they come"


def test_refused_proteins_are_named_with_the_servers_words_and_the_others_are_answered(tab: Browser) -> None:
    cards = predict(tab, f">P1\nKK1K\n{THREE}>P9\n{'K' * 121}\n")
    assert [card["refused"] for card in cards] == [True, False, False, False, True]
    assert "Not answered: '1' at residue 3 is no amino acid" in cards[0]["text"]
    assert "121 residues, expected at most 120" in cards[4]["text"]
    assert "3 of 5 proteins answered" in words(tab, "#status")
    assert "Mend P1, P9, then predict again" in words(tab, "#status")
    assert "P1" in tab.ask("document.activeElement.querySelector('h3').textContent")
    tab.click(".refused:last-child button")
    assert tab.ask("getSelection().toString()") == ">P9"
    assert tab.ask(FOCUSED) == "proteins"


def test_what_else_is_wrong_with_a_protein_is_named_by_its_field(tab: Browser, front: Front) -> None:
    front.replies = [refuse_once(400, "instances[1].accession: expected at most 200 characters of text")]
    cards = predict(tab, THREE)
    assert [card["refused"] for card in cards] == [False, True, False]
    assert "Not answered: accession: expected at most 200 characters" in cards[1]["text"]


def test_an_explanation_names_the_residues_that_speak_for_and_against(tab: Browser) -> None:
    predict(tab, f">P2\nGGGG{'L' * 20}WGG\n")
    tab.click(".ask button")
    tab.until("document.querySelector('.residues')")
    shown = words(tab, ".explanation")
    assert "Residues that speak for Cell membrane" in shown
    assert f"Strongest stretch: residues 5 to 24, {'L' * 20}, with 100.0 % of all" in shown
    assert "Rough scores" in shown
    residues = tab.ask("[...document.querySelectorAll('.residue')].map(one => [one.textContent, one.title])")
    assert "".join(letter for letter, _ in residues) == f"GGGG{'L' * 20}WGG"
    assert residues[4] == ["L", "L5: +1.000"]
    assert residues[24] == ["W", "W25: \u22122.000"]
    (up, nothing), (none, down) = tab.ask("""[".for:nth-child(6)", ".residue.against"].map(selector =>
      ["::before", "::after"].map(side => {
        const bar = getComputedStyle(document.querySelector(selector), side);
        return bar.backgroundColor == "rgba(0, 0, 0, 0)" ? 0 : parseFloat(bar.height);
      }))""")
    assert (nothing, none) == (0, 0)
    assert down == pytest.approx(2 * up, abs=1)
    assert tab.complaints == []


def test_another_place_can_be_asked_about_and_unread_residues_are_counted(tab: Browser) -> None:
    predict(tab, f">P3\nKK{LONG}\n")
    tab.ask("document.querySelector('.ask select').value = 'Nucleus'")
    tab.click(".ask button")
    tab.until("document.querySelector('.residues')")
    shown = words(tab, ".explanation")
    assert "Strongest stretch: residues 1 to 20" in shown
    assert "12 residues were not read and have no score." in shown
    assert "residues 51 to 62 were not read" in words(tab, ".unread")
    assert tab.ask("document.querySelectorAll('.residue').length") == 50
    tab.ask("document.querySelector('.explanation details').open = true")
    assert words(tab, ".explanation tr:nth-child(2)").split() == ["K1", "+1.000", "for"]


@pytest.mark.parametrize("status", [404, 501])
def test_a_server_without_explanations_is_no_fault_of_the_person(
    tab: Browser, front: Front, status: int
) -> None:
    predict(tab, THREE)
    front.replies = [refuse_once(status, "Not Found")]
    tab.click(".ask button")
    tab.until("document.querySelector('.explanation .mistake')")
    assert words(tab, ".explanation") == (
        "This server gives no explanations. The answer above holds without them."
    )
    assert len(tab.ask(CARDS)) == 3


def test_the_table_is_that_of_prottune_predict(
    tab: Browser, tmp_path: Path, letters: LettersPredictor
) -> None:
    predict(tab, f'>P"1,x\n{NUCLEAR}\n>bad\n1\n>P2\n{BOUND}\n')
    file = tab.download("#csv", tmp_path)
    assert file.name == "locations.csv"
    header, *rows = csv.reader(file.read_text(encoding="utf-8").splitlines())
    assert header == table_schema(letters.labels).names
    assert [row[0] for row in rows] == ['P"1,x', "P2"]
    for row, answer in zip(rows, letters.predict([NUCLEAR, BOUND]), strict=True):
        assert row[1] == answer.location
        assert [float(value) for value in (row[2], *row[7:10], row[10])] == pytest.approx(
            [answer.probability, *answer.probabilities.tolist(), answer.membrane]
        )
        expected = (answer.confident, answer.unlike_training, answer.truncated, answer.num_residues)
        assert row[3:7] == [str(value).lower() for value in expected]


def test_the_answers_can_be_taken_as_json(tab: Browser, tmp_path: Path) -> None:
    predict(tab, THREE)
    tab.click(".ask button")
    tab.until("document.querySelector('.residues')")
    found = json.loads(tab.download("#json", tmp_path).read_text(encoding="utf-8"))
    assert [entry["accession"] for entry in found["predictions"]] == ["P1", "P2", "P3"]
    assert found["predictions"][0]["probabilities"]["Nucleus"] == pytest.approx(9 / 11)
    assert [entry["explained"] for entry in found["explanations"]] == ["Nucleus"]
    assert found["model_version"] == "7"


def test_a_file_can_be_chosen_or_dropped(tab: Browser, tmp_path: Path) -> None:
    (tmp_path / "two.fasta").write_text(THREE)
    tab.choose_file("#file", tmp_path / "two.fasta")
    tab.until("document.querySelector('#proteins').value != ''")
    assert tab.ask("document.querySelector('#proteins').value") == THREE
    tab.ask("""(() => {
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File([">D1\\r\\nKKK\\r\\n"], "one.fa"));
      document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
    })()""")
    tab.until("document.querySelector('#proteins').value.startsWith('>D1')")
    tab.click("#predict")
    assert [card["name"] for card in answered(tab)] == ["D1"]


def test_what_cannot_be_read_is_told(tab: Browser, tmp_path: Path) -> None:
    tab.choose_file("#file", tmp_path)  # as a browser hands over a folder that is dropped
    tab.until("document.querySelector('#mistake').textContent != ''")
    assert words(tab, "#mistake") == "A file cannot be read. Folders cannot be dropped here."


def test_a_packed_file_is_refused_by_name(tab: Browser, tmp_path: Path) -> None:
    (tmp_path / "two.fasta.gz").write_bytes(b"\x1f\x8b")
    tab.choose_file("#file", tmp_path / "two.fasta.gz")
    tab.until("document.querySelector('#mistake').textContent != ''")
    assert words(tab, "#mistake") == "two.fasta.gz is packed. Unpack it first."


def test_a_busy_server_is_waited_for_with_a_count(tab: Browser, front: Front) -> None:
    front.replies = [
        refuse_once(429, "queue full", retry_after="2"),
        refuse_once(503, "late", retry_after="1"),
    ]
    paste(tab, THREE)
    tab.click("#predict")
    for count in ("(queue full). Trying again in 2 s", "in 1 s", "(late). Trying again in 1 s"):
        tab.until(f"document.querySelector('#wait').textContent.includes({json.dumps(count)})")
    assert len(answered(tab)) == 3
    assert len(front.asked) == 3


def test_a_time_to_come_back_at_may_be_a_date(tab: Browser) -> None:
    seconds = tab.ask("""secondsToWait(new Response("", { status: 503, headers: {
      "retry-after": new Date(Date.now() + 9000).toUTCString() } }))""")
    assert 7 <= seconds <= 9


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (refuse_once(503, "the model is not ready"), "the model is not ready."),
        (refuse_once(500, "KeyError inside the server"), "KeyError inside the server."),
        ((502, {}, "<html>Bad gateway</html>"), "502"),
        ((200, {}, "<html>Hello</html>"), "The answer broke off, or is not JSON. Try again."),
        ((200, {}, "{}"), "The server answered for other proteins."),
    ],
)
def test_other_refusals_are_told_and_keep_the_text(tab: Browser, front: Front, reply: Any, said: str) -> None:
    front.replies = [reply]
    assert predict(tab, THREE) == []
    assert said in words(tab, "#status")
    assert tab.ask("document.querySelector('#proteins').value") == THREE
    tab.click("#predict")
    tab.until("document.querySelectorAll('.answered').length == 3")


def test_a_server_that_takes_less_at_a_time_gets_less(tab: Browser, front: Front) -> None:
    front.replies = [
        refuse_once(400, "instances: expected 1 to 2 sequences, got 3"),
        refuse_once(413, "body: too large"),
    ]
    assert [card["name"] for card in predict(tab, THREE)] == ["P1", "P2", "P3"]
    assert len(front.asked) == 5  # 3 refused, 2 refused, 1, 1, 1


def test_a_question_can_be_cancelled_and_what_was_answered_stays(tab: Browser, front: Front) -> None:
    front.open.clear()
    paste(tab, THREE)
    tab.click("#predict")
    assert tab.ask("document.querySelector('#predict').ariaDisabled") == "true"
    tab.until("!document.querySelector('#cancel').hidden")
    tab.click("#cancel")
    tab.until(IS_DONE)
    assert words(tab, "#status") == "Cancelled."
    assert tab.ask(FOCUSED) == "predict"
    front.open.set()
    tab.click("#predict")
    tab.until("document.querySelectorAll('.answered').length == 3")
    front.open.clear()
    tab.click(".ask button")
    assert words(tab, ".ask button") == "Cancel"
    tab.click(".ask button")
    tab.until("document.querySelector('.explanation').innerText == 'Cancelled.'")


def test_a_token_is_asked_for_and_kept_in_memory_only(tab: Browser, front: Front) -> None:
    front.token = "open-sesame"
    paste(tab, THREE)
    tab.click("#predict")
    for given in ("wrong", "open-sesame"):
        tab.until("document.querySelector('dialog').open")
        tab.write(given)
        tab.press("Enter")
        tab.until(
            f"{json.dumps(given)} != 'wrong' || document.querySelector('#token-words').textContent != ''"
        )
    assert len(answered(tab)) == 3
    tab.click(".ask button")
    tab.until("document.querySelector('.residues')")
    assert tab.ask("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    assert "open-sesame" not in tab.ask(
        "document.documentElement.outerHTML + document.querySelector('#token').value"
    )


def test_whoever_has_no_token_can_leave(tab: Browser, front: Front) -> None:
    front.token = "open-sesame"
    paste(tab, THREE)
    tab.click("#predict")
    tab.until("document.querySelector('dialog').open")
    tab.press("Escape")
    tab.until(IS_DONE)
    assert words(tab, "#status") == "Cancelled."
    assert not tab.ask("document.querySelector('dialog').open")


def test_what_somebody_pasted_stays_text(tab: Browser) -> None:
    cards = predict(tab, f"{HOSTILE}\n{NUCLEAR}\n{HOSTILE}\n1\n")
    assert cards[0]["name"] == cards[1]["name"] == "<img/src=x/onerror=alert(1)>"
    assert HOSTILE[1:] in cards[0]["text"]
    assert tab.ask("document.querySelectorAll('img, #cards script').length") == 0
    tab.click(".ask button")
    tab.until("document.querySelector('.residues')")
    assert not any(event["method"] == "Page.javascriptDialogOpening" for event in tab.events)


def test_the_policy_really_keeps_other_scripts_out(tab: Browser) -> None:
    refused = tab.ask("""(() => {
      try { document.body.innerHTML = "<p>HTML</p>" } catch (error) { return error.name }
    })()""")
    assert refused == "TypeError"
    assert any("TrustedHTML" in complaint for complaint in tab.complaints)


def test_everything_can_be_done_without_a_mouse(tab: Browser) -> None:
    reached = []
    for _ in range(4):
        tab.press("Tab")
        reached.append(tab.ask(FOCUSED))
    assert reached == ["proteins", "predict", "choose", "example"]
    assert tab.ask("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tab.press("Enter")
    assert len(answered(tab)) == 3
    reached = []
    while "Explain" not in reached:
        tab.press("Tab")
        reached.append(tab.ask(FOCUSED))
        assert len(reached) < 12
    assert reached == ["choose", "clear", "csv", "json", "location-0", "Explain"]
    tab.press("Enter")
    tab.until("document.querySelector('.residues')")
    tab.ask("document.querySelector('#proteins').focus()")
    tab.write(">another\nKKK\n")
    tab.press("Enter", control=True)
    tab.until("[...document.querySelectorAll('h3')].at(-1)?.textContent == 'another'")


def test_what_changes_is_told_to_screen_readers(tab: Browser) -> None:
    predict(tab, f">P1\n{NUCLEAR}\n")
    assert tab.ask("document.querySelector('#status').role") == "status"
    assert tab.ask("document.querySelector('#mistake').role") == "alert"
    assert tab.ask("document.querySelector('.explanation').ariaLive") == "polite"
    nameless = tab.ask("""[...document.querySelectorAll("input, select, textarea")]
      .filter(field => !field.hidden && field.labels.length == 0).length""")
    assert nameless == 0
    assert tab.ask("document.querySelector('.card').getAttribute('aria-labelledby')") == "protein-0"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_their_ground(tab: Browser, scheme: str) -> None:
    tab.emulate(scheme=scheme)
    predict(tab, THREE)
    ink, paper, button, its_ground = tab.ask(f"""[["color", ".card"], ["backgroundColor", ".card"],
      ["color", "#predict"], ["backgroundColor", "#predict"]].map(([property, selector]) =>
        ({LIGHTNESS})(getComputedStyle(document.querySelector(selector))[property]))""")
    assert (ink < paper) == (scheme == "light")
    assert abs(ink - paper) > 0.5
    assert abs(button - its_ground) > 0.4


@pytest.mark.parametrize("width", [360, 1000])
def test_the_page_never_scrolls_sideways(tab: Browser, width: int) -> None:
    tab.resize(width, 800)
    predict(tab, f"{HOSTILE}{'x' * 100}\n{NUCLEAR}\n>{'y' * 80}\n1\n{THREE}")
    tab.click(".ask button")
    tab.until("document.querySelector('.residues')")
    tab.ask("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert tab.ask("document.documentElement.scrollWidth") == width
    beyond = tab.ask("""[...document.querySelectorAll("main *")].filter(one =>
      one.getBoundingClientRect().right > innerWidth).length""")
    assert beyond == 0


def test_paper_shows_answers_without_the_form(tab: Browser) -> None:
    predict(tab, THREE)
    tab.emulate(scheme="dark", media="print")
    seen = "selector => document.querySelector(selector).checkVisibility()"
    assert tab.ask(f"['.card', '.ranking', '#question', '#csv'].map({seen})") == [True, True, False, False]
    assert tab.ask(f"({LIGHTNESS})(getComputedStyle(document.body).color)") < 0.5
    assert tab.printed().startswith(b"%PDF")


def test_a_real_model_is_shown_as_it_answers(tab: Browser, tmp_path: Path) -> None:
    config = ServeConfig(precision="fp32")
    model = LocationPredictor.from_folder(write_tiny_model(tmp_path / "model", membrane=True), config, "")
    with running(application(model, config)) as address:
        tab.open(address)
        (card,) = predict(tab, f">P1\nM{NUCLEAR * 5}\n")
        tab.click(".ask button")
        tab.until("document.querySelector('.residues')")
        found = json.loads(tab.download("#json", tmp_path).read_text(encoding="utf-8"))
        shown = tab.ask("[...document.querySelectorAll('.residue')].map(one => one.title.split(': ')[1])")
        assert tab.complaints == []
    asyncio.run(model.close())
    (prediction,), (explanation,) = found["predictions"], found["explanations"]
    ranked = sorted(prediction["probabilities"].values(), reverse=True)
    assert [row[1] for row in card["ranking"]] == [f"{share:.1%}".replace("%", "\u00a0%") for share in ranked]
    assert f"bound to a membrane: {prediction['membrane']:.1%}".replace("%", " %") in card["text"]
    assert found["model_version"] == model.model_version
    scores = [float(score.replace("\u2212", "-")) for score in shown]
    assert scores == pytest.approx(explanation["scores"], abs=5e-4)


def test_the_page_talks_to_its_own_server_only(tab: Browser, server: tuple[Front, str]) -> None:
    predict(tab, THREE)
    _, address = server
    assert tab.fetched == [address, f"{address}v1/models/prottune:predict"]
    assert tab.complaints == []
