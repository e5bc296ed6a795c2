// FASTA by the rules of src/prottune/fasta.py, as far as a person can break them in a box. Which letters are
// residues is the server's to say.

/** The text is no FASTA; `line`, counted from 1, is where to look. */
class FastaError extends Error {
  constructor(line, words) {
    super(`Line ${line}: ${words}`);
    this.line = line;
  }
}

/** Read the proteins of a text: each with name, header, sequence and the line where it begins. */
function readProteins(text, maxProteins) {
  const lines = text.replace(/^\ufeff/, "").split(/\r\n|\n|\r/);
  if (lines.every((line) => line.trim() === "")) {
    throw new FastaError(1, "there is no protein yet; paste one, or try the example.");
  }
  const proteins = lines.some(isHeader) ? readRecords(lines) : [readBareSequence(lines)];
  if (proteins.length > maxProteins) {
    throw new FastaError(
      proteins[maxProteins].line,
      `${proteins.length} proteins, expected at most ${maxProteins}. Take out what begins here, ` +
        "or use “prottune predict”, which reads files of any size.",
    );
  }
  return proteins.map(withoutStop);
}

function readRecords(lines) {
  const proteins = [];
  lines.forEach((line, place) => {
    if (isHeader(line)) {
      proteins.push({ ...readHeader(line.trimStart(), place + 1), sequence: "", line: place + 1 });
    } else if (proteins.length > 0) {
      proteins.at(-1).sequence += line.replace(/\s/g, "");
    } else if (line.trim() !== "") {
      throw new FastaError(place + 1, "text before the first header. Put a line like “>name” above it.");
    }
  });
  const empty = proteins.find((protein) => protein.sequence === "");
  if (empty) {
    throw new FastaError(empty.line, `${empty.name} has no sequence. Put its residues below the header.`);
  }
  return proteins;
}

/** A pasted text may be indented as a whole. */
function isHeader(line) {
  return line.trimStart().startsWith(">");
}

function readHeader(line, number) {
  const header = line.slice(1).trimEnd();
  if (header === "" || /^\s/.test(header)) {
    throw new FastaError(number, "a header without a name. Write the name right after “>”.");
  }
  const [, uniprot, word] = header.match(/^(?:(?:sp|tr)\|([^|\s]+)\|\S*|(\S+))/);
  return { name: uniprot ?? word, header };
}

/** Without a header the text is one protein; two blocks might be two, so they are not joined in silence. */
function readBareSequence(lines) {
  const first = lines.findIndex((line) => line.trim() !== "");
  const end = lines.findIndex((line, place) => place > first && line.trim() === "");
  const next = end < 0 ? -1 : lines.findIndex((line, place) => place > end && line.trim() !== "");
  if (next >= 0) {
    throw new FastaError(
      next + 1,
      "text after an empty line. If it is another protein, put “>name” above each of them.",
    );
  }
  return { name: "sequence", header: "", sequence: lines.join("").replace(/\s/g, ""), line: first + 1 };
}

/** A final * is the stop of the translation, no residue. */
function withoutStop(protein, index) {
  const hadStop = protein.sequence.endsWith("*");
  const sequence = hadStop ? protein.sequence.slice(0, -1) : protein.sequence;
  return { ...protein, index, sequence, hadStop };
}
