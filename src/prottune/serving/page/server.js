// Asking the server: waiting when it is busy, the token when it wants one, its own words when it refuses.

/** A server that is still busy after this time is not asked again. */
const PATIENCE_SECONDS = 120;
/** Proteins go out in pieces, so that answers appear as they come and a cancel spares the rest. */
const PIECE_PROTEINS = 8;
const PIECE_RESIDUES = 4000;

/** The server said no. `instance` is the place of the protein that it is about, or null. */
class Refusal extends Error {
  constructor(status, words) {
    const [, place, rest] = words.match(/^instances\[(\d+)\][.:]\s*(?:sequence: )?([^]+)$/) ?? [];
    super(rest || words);
    this.status = status;
    this.instance = place === undefined ? null : Number(place);
  }
}

let token = ""; // in memory only

/** Send proteins to a route and return its JSON. `wait` is told what is waited for, and "" when it is over. */
async function ask(route, instances, { signal, wait, askForToken }) {
  const begun = Date.now();
  while (true) {
    const response = await send(route, instances, signal);
    if (response.ok) return readJson(response);
    const words = await wordsOf(response);
    const seconds = secondsToWait(response);
    if (response.status === 401) {
      token = await askForToken(token === "" ? "" : "The token was not accepted.", signal);
    } else if (seconds !== null && Date.now() - begun < PATIENCE_SECONDS * 1000) {
      await countDown(seconds, words, { signal, wait });
    } else {
      throw new Refusal(response.status, words);
    }
  }
}

async function send(route, instances, signal) {
  const headers = { "content-type": "application/json" };
  if (token !== "") headers.authorization = `Bearer ${token}`;
  const body = JSON.stringify({ instances });
  try {
    return await fetch(route, { method: "POST", headers, body, signal, cache: "no-store" });
  } catch (error) {
    if (signal.aborted) throw error;
    throw new Refusal(0, "The server cannot be reached. Is it still running? Then try again.");
  }
}

async function readJson(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(response.status, "The answer broke off, or is not JSON. Try again.");
  }
}

async function wordsOf(response) {
  const text = await response.text();
  try {
    const { error } = JSON.parse(text);
    if (typeof error === "string" && error !== "") return error;
  } catch {
    // not the server's own refusal, but that of something in front of it
  }
  return `${response.status} ${response.statusText}`.trim();
}

/** What Retry-After says, if the server is busy; null when waiting would not help. */
function secondsToWait(response) {
  const after = response.headers.get("retry-after");
  if (![429, 503].includes(response.status) || after === null) return null;
  const seconds = /^\d+$/.test(after) ? Number(after) : (Date.parse(after) - Date.now()) / 1000;
  return Number.isNaN(seconds) ? null : Math.max(1, Math.ceil(seconds));
}

async function countDown(seconds, words, { signal, wait }) {
  for (let left = seconds; left > 0; left -= 1) {
    wait(`The server is busy (${words}). Trying again in ${left} s.`);
    await sleep(1000, signal);
  }
  wait("");
}

function sleep(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const giveUp = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", giveUp);
      resolve();
    }, milliseconds);
    signal.addEventListener("abort", giveUp, { once: true });
  });
}

/** Ask where proteins live, a piece at a time; each piece yields what became of each of its proteins, in order. */
async function* predictions(proteins, asking) {
  for (const piece of pieces(proteins)) {
    const outcomes = await predictPiece(piece, asking);
    yield outcomes.sort((one, other) => one.protein.index - other.protein.index);
  }
}

function* pieces(proteins) {
  let piece = [];
  let residues = 0;
  for (const protein of proteins) {
    const isFull = piece.length === PIECE_PROTEINS || residues + protein.sequence.length > PIECE_RESIDUES;
    if (isFull && piece.length > 0) {
      yield piece;
      piece = [];
      residues = 0;
    }
    piece.push(protein);
    residues += protein.sequence.length;
  }
  yield piece;
}

/** A protein that the server refuses is put aside with its words, and the others are asked again. */
async function predictPiece(piece, asking) {
  if (piece.length === 0) return [];
  try {
    const answer = await ask(FACTS.predict, piece.map(asInstance), asking);
    const { predictions: found, model_version: version } = answer;
    if (found?.length !== piece.length) throw new Refusal(200, "The server answered for other proteins.");
    return piece.map((protein, place) => ({ protein, prediction: found[place], version }));
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    const isAlone = piece.length === 1;
    const refused = piece[error.instance ?? (error.status === 413 && isAlone ? 0 : -1)];
    if (refused) {
      const others = await predictPiece(piece.filter((protein) => protein !== refused), asking);
      return [{ protein: refused, refusal: error }, ...others];
    }
    if (isAlone || ![400, 413].includes(error.status)) throw error;
    const half = Math.ceil(piece.length / 2); // too many or too much at once for this server
    const first = await predictPiece(piece.slice(0, half), asking);
    return [...first, ...(await predictPiece(piece.slice(half), asking))];
  }
}

/** Ask which residues of one protein speak for a location. */
async function explanation(protein, location, asking) {
  try {
    const answer = await ask(FACTS.explain, [{ ...asInstance(protein), location }], asking);
    const found = answer.explanations?.[0];
    if (!Array.isArray(found?.scores)) throw new Refusal(200, "The server's answer has no scores.");
    return found;
  } catch (error) {
    if (!(error instanceof Refusal) || ![404, 405, 501].includes(error.status)) throw error;
    throw new Refusal(error.status, "This server gives no explanations. The answer above holds without them.");
  }
}

function asInstance({ name, sequence }) {
  return { accession: name, sequence };
}
