// The picture of an explanation: each residue with a bar, up and blue for the location, down and orange
// against it, as src/prottune/residue_map.py draws it.

const GROUP_RESIDUES = 10;
const NUM_STRONGEST = 10;

/** Everything that is shown of one explanation. */
function drawExplanation(found) {
  const location = spoken(found.explained);
  const stretch = strongestStretch(found.scores, FACTS.stretch_residues);
  const rough = "Rough scores: they do not add up to what they explain. Read them as hints.";
  const caution = "This is what the model looked at. Whether the cell does is another question.";
  return [
    make("h4", {}, `Residues that speak for ${location}`),
    legend(location),
    make("p", { className: "stretch-words" }, stretchWords(found, stretch, location)),
    ...(found.complete === false ? [make("p", { className: "warning" }, rough)] : []),
    residueMap(found, stretch, location),
    strongestResidues(found),
    make("p", { className: "note" }, caution),
  ];
}

function legend(location) {
  return make(
    "p",
    { className: "legend" },
    make("span", { className: "for" }, `▲ up and blue: for ${location}`),
    make("span", { className: "against" }, "▼ down and orange: against it"),
  );
}

/** First and last residue, from 1, of the stretch that speaks most for the answer, and its share of all of it. */
function strongestStretch(scores, length) {
  const positive = scores.map((score) => Math.max(score ?? 0, 0));
  const total = positive.reduce((sum, score) => sum + score, 0);
  const width = Math.min(length, positive.length);
  let sum = positive.slice(0, width).reduce((all, score) => all + score, 0);
  let best = { sum, first: 1 };
  for (let first = 1; first + width <= positive.length; first += 1) {
    sum += positive[first + width - 1] - positive[first - 1];
    if (sum > best.sum) best = { sum, first: first + 1 };
  }
  return { first: best.first, last: best.first + width - 1, share: total > 0 ? best.sum / total : 0 };
}

function stretchWords({ sequence, scores }, { first, last, share }, location) {
  const letters = sequence.slice(first - 1, last);
  const strongest =
    share > 0
      ? `Strongest stretch: residues ${count(first)} to ${count(last)}, ${letters}, ` +
        `with ${percent(share)} of all that speaks for ${location}. It is underlined.`
      : `No residue speaks for ${location}.`;
  const unread = scores.filter((score) => score === null).length;
  return unread > 0 ? `${strongest} ${count(unread)} residues were not read and have no score.` : strongest;
}

function residueMap({ sequence, scores }, stretch, location) {
  const largest = Math.max(...scores.map((score) => Math.abs(score ?? 0))) || 1;
  const map = make("div", { className: "residues", role: "img" });
  map.setAttribute("aria-label", `Score of each residue for ${location}; words and a table tell the strongest`);
  for (let place = 0; place < sequence.length; ) {
    if (scores[place] === null) {
      const next = scores.findIndex((score, other) => other > place && score !== null);
      const end = next < 0 ? sequence.length : next;
      const words = `residues ${count(place + 1)} to ${count(end)} were not read`;
      map.append(make("p", { className: "unread" }, words));
      place = end;
      continue;
    }
    const group = make("span", { className: "group" }, make("span", { className: "number" }, count(place + 1)));
    const end = Math.min(place + GROUP_RESIDUES - (place % GROUP_RESIDUES), sequence.length);
    for (; place < end && scores[place] !== null; place += 1) {
      group.append(residue(sequence[place], place + 1, scores[place], largest, stretch));
    }
    map.append(group);
  }
  return map;
}

function residue(letter, number, score, largest, { first, last, share }) {
  const cell = make("span", { className: "residue", title: `${letter}${number}: ${signed(score)}` }, letter);
  if (score !== 0) cell.classList.add(score > 0 ? "for" : "against");
  if (share > 0 && number >= first && number <= last) cell.classList.add("stretch");
  cell.style.setProperty("--share", String(Math.abs(score) / largest));
  return cell;
}

function strongestResidues({ sequence, scores, explained }) {
  const places = scores
    .map((score, place) => ({ score: score ?? 0, place }))
    .sort((one, other) => Math.abs(other.score) - Math.abs(one.score))
    .slice(0, NUM_STRONGEST);
  const rows = places.map(({ score, place }) =>
    make(
      "tr",
      {},
      make("td", {}, `${sequence[place]}${place + 1}`),
      make("td", { className: "number" }, signed(score)),
      make("td", {}, score > 0 ? "for" : score < 0 ? "against" : ""),
    ),
  );
  const columns = ["Residue", "Score", spoken(explained)];
  const head = make("tr", {}, ...columns.map((words) => make("th", { scope: "col" }, words)));
  const summary = make("summary", {}, "The strongest residues as a table");
  return make("details", {}, summary, make("table", {}, head, ...rows));
}

function signed(score) {
  return `${score < 0 ? "−" : "+"}${Math.abs(score).toFixed(3)}`;
}
