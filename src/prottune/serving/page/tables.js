// What can be taken home: the table of `prottune predict` as CSV, and the server's own answers as JSON.

const FIRST_COLUMNS =
  "accession location probability confident unlike_training truncated num_residues".split(" ");

/** Rows of quoted words and bare numbers, as `prottune predict` writes them. */
function asCsv(predictions) {
  const locations = Object.keys(predictions[0].probabilities);
  const header = [...FIRST_COLUMNS, ...columnNames(locations), "membrane"];
  const rows = predictions.map((prediction) =>
    [
      ...FIRST_COLUMNS.map((name) => prediction[name]),
      ...locations.map((location) => prediction.probabilities[location]),
      prediction.membrane,
    ].map(csvCell),
  );
  return [header, ...rows].map((row) => `${row.join(",")}\n`).join("");
}

/** p_nucleus for Nucleus: the rule of `prottune.records.slug`, with a number where two would be the same. */
function columnNames(locations) {
  const names = [];
  for (const location of locations) {
    const name = `p_${location.toLowerCase().replace(/[^a-z0-9]+/g, "_").replace(/^_+|_+$/g, "")}`;
    names.push(names.includes(name) ? `${name}_${names.length + 1}` : name);
  }
  return names;
}

function csvCell(value) {
  if (value === null || value === undefined) return "";
  return typeof value === "string" ? `"${value.replaceAll('"', '""')}"` : String(value);
}

function asJson(answered) {
  const predictions = answered.map((outcome) => outcome.prediction);
  const explanations = answered.flatMap((outcome) => outcome.explanation ?? []);
  const explained = explanations.length > 0 ? { explanations } : {};
  const found = { predictions, ...explained, model_version: versionsOf(answered) };
  return `${JSON.stringify(found, null, 1)}\n`;
}

/** The model that answered; two when a new one took over in between. */
function versionsOf(answered) {
  return [...new Set(answered.map((outcome) => outcome.version))].join(", ");
}

function download(name, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000); // some browsers first ask where to put it
}
