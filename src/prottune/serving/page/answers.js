// One card a protein: what the server answered or refused, in words, bars and, when asked for, residues.
// Whatever came from a person or the server becomes text, never HTML.

const NUM_SHOWN = 4;

/** An element with these properties and children; a string child is text. */
function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function count(number) {
  return number.toLocaleString("en");
}

function plural(number, one, many = `${one}s`) {
  return `${count(number)}\u00a0${number === 1 ? one : many}`;
}

function percent(share) {
  if (share > 0.9995 && share < 1) return "> 99.9\u00a0%";
  if (share > 0 && share < 0.0005) return "< 0.1\u00a0%";
  return `${(100 * share).toFixed(1)}\u00a0%`;
}

/** Cell.membrane -> Cell membrane; tables keep the model's own spelling. */
function spoken(location) {
  return location.replace(/(?<=\p{L})\.(?=\p{L})/gu, " ");
}

function card(protein, name, ...children) {
  const title = make("h3", { id: `protein-${protein.index}` }, protein.name);
  const drawn = make("article", { className: `card ${name}`, tabIndex: -1 }, title, ...children);
  drawn.setAttribute("aria-labelledby", title.id);
  return drawn;
}

/** A protein that the server did not take: its words, and the way to the place where to mend it. */
function refusedCard({ protein, refusal }, showInText) {
  const button = make("button", { type: "button" }, `Go to line ${count(protein.line)}`);
  button.addEventListener("click", () => showInText(protein));
  const words = make("p", { className: "mistake" }, `Not answered: ${refusal.message}`);
  return card(protein, "refused", words, make("p", { className: "buttons" }, button));
}

/** A protein with its answer. `explain(outcome, location, place)` fills the place below it. */
function answeredCard(outcome, explain) {
  const { protein, prediction } = outcome;
  const [badge, sure] = prediction.confident ? ["badge sure", "confident"] : ["badge", "not confident"];
  const verdict = make(
    "p",
    { className: "verdict" },
    make("strong", {}, spoken(prediction.location)),
    ` ${percent(prediction.probability)} `,
    make("span", { className: badge }, sure),
  );
  return card(
    protein,
    "answered",
    make("p", { className: "about" }, about(protein, prediction)),
    verdict,
    ...warnings(prediction).map((words) => make("p", { className: "warning" }, words)),
    ...ranking(prediction),
    explainPart(outcome, explain),
  );
}

function about({ header, hadStop }, { num_residues: residues, membrane }) {
  const told = [header, plural(residues, "residue")];
  if (typeof membrane === "number") told.push(`bound to a membrane: ${percent(membrane)}`);
  if (hadStop) told.push("the final stop (*) was taken off");
  return told.filter((words) => words !== "").join(" · ");
}

function warnings(prediction) {
  const told = [];
  if (prediction.unlike_training) {
    told.push(
      "Unlike the proteins that the model was trained with: it recognises little here, " +
        "and its figures may mean nothing.",
    );
  }
  if (prediction.truncated) told.push(cutWords(prediction));
  if (!prediction.confident) {
    told.push("Not confident: look at the next places too.");
  }
  return told;
}

function cutWords({ left_out: leftOut, num_residues: residues }) {
  if (!leftOut) return `Only part of its ${count(residues)} residues was read; Explain shows which.`;
  const [first, last] = leftOut;
  const head = first > 1 && `1 to ${count(first - 1)}`;
  const tail = last < residues && `${count(last + 1)} to ${count(residues)}`;
  return `Only residues ${[head, tail].filter(Boolean).join(" and ")} of ${count(residues)} were read.`;
}

/** Locations with their bars, the most probable first; the less probable ones are folded away. */
function ranking({ probabilities }) {
  const ranked = rankedLocations(probabilities).map((location) => {
    const bar = make("span", { className: "bar" });
    bar.style.setProperty("--share", String(probabilities[location]));
    return make(
      "li",
      {},
      make("span", { className: "place" }, spoken(location)),
      make("span", { className: "track" }, bar),
      make("span", { className: "number" }, percent(probabilities[location])),
    );
  });
  const drawn = [make("ol", { className: "ranking" }, ...ranked.slice(0, NUM_SHOWN))];
  if (ranked.length > NUM_SHOWN) {
    const rest = ranked.slice(NUM_SHOWN);
    const list = make("ol", { className: "ranking", start: NUM_SHOWN + 1 }, ...rest);
    drawn.push(make("details", {}, make("summary", {}, plural(rest.length, "more place")), list));
  }
  return drawn;
}

function rankedLocations(probabilities) {
  return Object.keys(probabilities).sort((one, other) => probabilities[other] - probabilities[one]);
}

function explainPart(outcome, explain) {
  const { protein, prediction } = outcome;
  const options = rankedLocations(prediction.probabilities).map((location) =>
    make("option", { value: location }, spoken(location)),
  );
  const choice = make("select", { id: `location-${protein.index}` }, ...options);
  const button = make("button", { type: "button" }, "Explain");
  button.setAttribute("aria-describedby", `protein-${protein.index}`);
  const place = make("div", { className: "explanation" });
  place.setAttribute("aria-live", "polite");
  button.addEventListener("click", () => explain(outcome, choice.value, { button, place }));
  const label = make("label", { htmlFor: choice.id }, "Which residues speak for ");
  return make("div", {}, make("p", { className: "buttons ask" }, label, choice, button), place);
}
