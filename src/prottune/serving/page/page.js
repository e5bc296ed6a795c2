// The page itself: what its buttons do, and what is said meanwhile.

const FACTS = JSON.parse(document.getElementById("facts").textContent);
const part = (id) => document.getElementById(id);

let running = null; // AbortController of the prediction that is under way
let shown = new AbortController(); // ends with the answers that are shown, and their explanations with it
let outcomes = []; // what became of each protein that was asked about
let tokenAsked = null; // a promise while the person is asked for the token

/** Ask about every protein in the box. */
async function predict() {
  const proteins = running ? null : proteinsInBox();
  if (proteins === null) return;
  clearAnswers();
  running = new AbortController();
  setRunning(proteins.length);
  let ending = "";
  try {
    const asking = { signal: running.signal, wait: tellWait, askForToken };
    for await (const some of predictions(proteins, asking)) show(some, proteins.length);
  } catch (error) {
    ending = wordsOfEnding(error);
  } finally {
    running = null;
    setIdle();
  }
  tellStatus(`${ending} ${summary(proteins.length)}`.trim(), ending !== "");
  part("cards").querySelector(".refused")?.focus();
}

function proteinsInBox() {
  try {
    const proteins = readProteins(part("proteins").value, FACTS.max_proteins);
    tellMistake("");
    return proteins;
  } catch (error) {
    if (!(error instanceof FastaError)) throw error;
    tellMistake(error.message);
    selectLine(error.line);
    return null;
  }
}

function wordsOfEnding(error) {
  if (error.name === "AbortError") return "Cancelled.";
  if (error instanceof Refusal) return `${error.message}${/[.!?]$/.test(error.message) ? "" : "."}`;
  throw error;
}

function show(some, numProteins) {
  const isFirst = outcomes.length === 0;
  outcomes.push(...some);
  part("cards").append(
    ...some.map((outcome) =>
      outcome.refusal ? refusedCard(outcome, showInText) : answeredCard(outcome, explain),
    ),
  );
  part("answers").hidden = false;
  part("csv").disabled = part("json").disabled = answered().length === 0;
  part("done").value = outcomes.length;
  tellStatus(`${count(outcomes.length)} of ${plural(numProteins, "protein")}.`);
  if (isFirst) part("status").scrollIntoView({ block: "start" });
}

function answered() {
  return outcomes.filter((outcome) => outcome.prediction);
}

function summary(numProteins) {
  if (outcomes.length === 0) return "";
  const known = answered();
  const words = [`${count(known.length)} of ${plural(numProteins, "protein")} answered`];
  if (known.length > 0) {
    words.push(`${count(known.filter((outcome) => outcome.prediction.confident).length)} confident`);
    words.push(`model ${versionsOf(known)}`);
  }
  const refused = outcomes.filter((outcome) => outcome.refusal).map((outcome) => outcome.protein.name);
  const some = `${refused.slice(0, 5).join(", ")}${refused.length > 5 ? " ..." : ""}`;
  return `${words.join(", ")}.${refused.length > 0 ? ` Mend ${some}, then predict again.` : ""}`;
}

/** Ask which residues speak for a location, and draw them below the answer; the button cancels meanwhile. */
async function explain(outcome, location, { button, place }) {
  if (place.controller) {
    place.controller.abort();
    return;
  }
  place.controller = new AbortController();
  button.textContent = "Cancel";
  const waiting = make("p", { className: "running", ariaLive: "off" }); // no screen reader counts seconds aloud
  place.replaceChildren(waiting);
  const clock = startClock((words) => (waiting.textContent = words));
  try {
    const signal = AbortSignal.any([place.controller.signal, shown.signal]);
    outcome.explanation = await explanation(outcome.protein, location, { signal, askForToken, wait: clock.wait });
    place.replaceChildren(...drawExplanation(outcome.explanation));
  } catch (error) {
    place.replaceChildren(make("p", { className: "mistake" }, wordsOfEnding(error)));
  } finally {
    clock.stop();
    place.controller = null;
    button.textContent = "Explain";
  }
}

/** Tell every second how long the residues have been read, unless something else is waited for. */
function startClock(tell) {
  const begun = Date.now();
  let other = "";
  const tick = () => tell(other || `Reading the residues, ${Math.round((Date.now() - begun) / 1000)} s`);
  const timer = setInterval(tick, 1000);
  tick();
  const wait = (words) => {
    other = words;
    tick();
  };
  return { wait, stop: () => clearInterval(timer) };
}

/** Ask the person for the server's token; it rejects if they would rather not. Who asks meanwhile waits too. */
function askForToken(words, signal) {
  tokenAsked ??= new Promise((resolve, reject) => {
    const dialog = part("token-dialog");
    const end = (settle, value) => {
      tokenAsked = null;
      part("token").value = "";
      dialog.close();
      settle(value);
    };
    const cancel = () => end(reject, new DOMException("no token", "AbortError"));
    part("token-words").textContent = words;
    part("token-form").onsubmit = (event) => {
      event.preventDefault();
      end(resolve, part("token").value);
    };
    part("token-cancel").onclick = cancel;
    dialog.oncancel = cancel; // the Escape key
    signal.addEventListener("abort", () => dialog.open && cancel(), { once: true });
    dialog.showModal();
  });
  return tokenAsked;
}

function clearAnswers() {
  shown.abort();
  shown = new AbortController();
  outcomes = [];
  part("cards").replaceChildren();
  part("answers").hidden = true;
  tellStatus("");
}

function setRunning(numProteins) {
  Object.assign(part("done"), { max: numProteins, value: 0 });
  part("predict").setAttribute("aria-disabled", "true"); // not `disabled`, which would lose the focus
  part("cancel").hidden = part("progress").hidden = false;
  tellWait("");
}

function setIdle() {
  part("predict").setAttribute("aria-disabled", "false");
  if (document.activeElement === part("cancel")) part("predict").focus();
  part("cancel").hidden = part("progress").hidden = true;
}

function tellWait(words) {
  part("wait").textContent = words || "Asking the model";
}

function tellStatus(words, isMistake = false) {
  part("status").textContent = words;
  part("status").classList.toggle("mistake", isMistake);
}

function tellMistake(words) {
  part("mistake").textContent = words;
  part("proteins").setAttribute("aria-invalid", String(words !== ""));
}

function showInText(protein) {
  selectLine(protein.line);
}

/** Select a line of the box, counted from 1, and scroll to it. */
function selectLine(number) {
  const box = part("proteins");
  const lines = box.value.split("\n");
  const start = lines.slice(0, number - 1).reduce((length, line) => length + line.length + 1, 0);
  box.focus();
  box.setSelectionRange(start, start + (lines[number - 1] ?? "").length);
  box.scrollTop = ((number - 1) * box.scrollHeight) / lines.length;
}

function fill(text) {
  part("proteins").value = text;
  noticeText();
}

function noticeText() {
  const isEmpty = part("proteins").value === "";
  part("example").hidden = !isEmpty;
  part("clear").hidden = isEmpty;
  tellMistake("");
}

async function readFiles(files) {
  const most = FACTS.max_megabytes;
  const large = files.find((file) => file.size > most * 2 ** 20);
  const packed = files.find((file) => /\.(gz|zip|bz2|xz)$/i.test(file.name));
  if (large) {
    tellMistake(`${large.name} is larger than ${most} MB. For large files there is “prottune predict”.`);
  } else if (packed) {
    tellMistake(`${packed.name} is packed. Unpack it first.`);
  } else {
    const texts = await Promise.all(files.map((file) => file.text())).catch(() => null);
    if (texts === null) {
      tellMistake("A file cannot be read. Folders cannot be dropped here.");
    } else {
      fill(texts.join("\n"));
      part("proteins").focus();
    }
  }
}

function tryExample() {
  fill(part("example-proteins").content.textContent);
  part("predict").focus(); // the example's own button is about to go
  predict();
}

function listen() {
  const on = (id, event, act) => part(id).addEventListener(event, act);
  on("question", "submit", (event) => {
    event.preventDefault();
    predict();
  });
  on("cancel", "click", () => running?.abort());
  on("proteins", "input", noticeText);
  on("proteins", "keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) predict();
  });
  on("example", "click", tryExample);
  on("clear", "click", () => {
    fill("");
    part("proteins").focus();
  });
  on("choose", "click", () => part("file").click());
  on("file", "change", async (event) => {
    await readFiles([...event.target.files]);
    event.target.value = ""; // so that the same file can be chosen again after it was mended
  });
  on("csv", "click", () => {
    download("locations.csv", "text/csv", asCsv(answered().map((outcome) => outcome.prediction)));
  });
  on("json", "click", () => download("locations.json", "application/json", asJson(answered())));
  listenToDrops();
}

/** A file may be dropped anywhere: a browser would leave the page for one that misses the box. */
function listenToDrops() {
  const hasFiles = (event) => event.dataTransfer.types.includes("Files");
  document.addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    readFiles([...event.dataTransfer.files]);
  });
}

part("limit").textContent = FACTS.max_proteins;
listen();
noticeText(); // the browser may have kept a text from before
