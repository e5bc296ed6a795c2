import pyarrow as pa
import pyarrow.parquet
import pytest

from prottune.alphabet import ALPHABET_SHA256, VOCABULARY, clean, cut, encode
from prottune.artifacts import MANIFEST_FILE, new_folder, read_manifest
from prottune.errors import ArtifactError, ConfigError, DataError
from prottune.fasta import read_fasta
from prottune.records import (
    DEEPLOC10,
    PROTEINS_FILE,
    TOKENS_FILE,
    Membrane,
    Protein,
    Split,
    read_tokens,
    sequence_digest,
    write_proteins,
)
from prottune.sample import SampleConfig, write_sample
from prottune.tokenization import TokenizeConfig, encode_column, tokenize


def protein(accession, sequence, location="Nucleus", split=Split.TRAIN, membrane=Membrane.UNKNOWN):
    return Protein(accession, sequence, location, membrane, split, accession)


PROTEINS = [
    protein("P1", "MKTA"),
    protein("P2", "MKTAYIAKQR", "Peroxisome", Split.TEST, Membrane.SOLUBLE),
    protein("P3", "X", "Golgi.apparatus", Split.GATE),
]


def write_records(folder, proteins, labels=DEEPLOC10.locations):
    with new_folder(folder, "ingest", None) as draft:
        write_proteins(proteins, draft.path)
        draft.facts.update(label_set="deeploc10", labels=list(labels))
    return folder


@pytest.fixture
def records(tmp_path):
    return write_records(tmp_path / "records", PROTEINS)


def test_every_protein_becomes_one_row_of_ids(records, tmp_path):
    report = tokenize(records, tmp_path / "tokens", TokenizeConfig())
    assert read_tokens(tmp_path / "tokens").to_pylist() == [
        {
            "accession": "P1",
            "ids": [2, 21, 12, 15, 6, 3],
            "label": 0,
            "membrane": "U",
            "split": "train",
            "num_residues": 4,
            "truncated": False,
            "sequence_sha256": sequence_digest("MKTA"),
        },
        {
            "accession": "P2",
            "ids": [2, 21, 12, 15, 6, 20, 11, 6, 12, 18, 13, 3],
            "label": 9,
            "membrane": "S",
            "split": "test",
            "num_residues": 10,
            "truncated": False,
            "sequence_sha256": sequence_digest("MKTAYIAKQR"),
        },
        {
            "accession": "P3",
            "ids": [2, 25, 3],
            "label": 7,
            "membrane": "U",
            "split": "gate",
            "num_residues": 1,
            "truncated": False,
            "sequence_sha256": sequence_digest("X"),
        },
    ]
    assert report.num_proteins == 3
    assert report.num_residues == 15
    assert report.num_tokens == 21
    assert report.num_truncated == 0
    assert report.num_residues_cut == 0


def test_the_manifest_says_what_training_needs(records, tmp_path):
    report = tokenize(records, tmp_path / "tokens", TokenizeConfig(max_residues=6, cut="tail"))
    manifest = read_manifest(tmp_path / "tokens", "tokenize")
    assert manifest.inputs == {"records": read_manifest(records).digest}
    assert manifest.facts == {
        "label_set": "deeploc10",
        "labels": list(DEEPLOC10.locations),
        "max_residues": 6,
        "cut": "tail",
        "alphabet_sha256": ALPHABET_SHA256,
    }
    assert manifest.digest == report.tokens_digest


@pytest.mark.parametrize("policy", ["head_tail", "head", "tail"])
@pytest.mark.parametrize("max_residues", [1, 2, 5, 9, 10])
def test_a_cut_column_equals_cut_proteins(records, tmp_path, policy, max_residues):
    report = tokenize(records, tmp_path / "tokens", TokenizeConfig(max_residues=max_residues, cut=policy))
    rows = read_tokens(tmp_path / "tokens").to_pylist()
    for row, whole in zip(rows, PROTEINS, strict=True):
        assert row["ids"] == encode([cut(whole.sequence, max_residues, policy)])[0].tolist()
        assert row["truncated"] == (whole.num_residues > max_residues)
        assert row["num_residues"] == whole.num_residues
        assert row["sequence_sha256"] == sequence_digest(whole.sequence)
    assert report.num_truncated == sum(row["truncated"] for row in rows)
    assert report.num_residues_cut == sum(max(0, p.num_residues - max_residues) for p in PROTEINS)


def test_tokenizing_twice_gives_the_same_bytes(records, tmp_path):
    for name in ("one", "two"):
        tokenize(records, tmp_path / name, TokenizeConfig(max_residues=4))
    assert (tmp_path / "one" / TOKENS_FILE).read_bytes() == (tmp_path / "two" / TOKENS_FILE).read_bytes()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_residues": -1}, r"max_residues=-1: expected 1 to 2\^31 - 1, or 0"),
        ({"cut": "middle"}, "cut='middle': expected one of head_tail, head, tail"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        TokenizeConfig(**settings)


def test_a_location_outside_the_records_label_set_is_refused(tmp_path):
    records = write_records(tmp_path / "records", PROTEINS, labels=("Nucleus", "Peroxisome"))
    with pytest.raises(DataError, match=r"locations \['Golgi.apparatus'\] are not in the records' own"):
        tokenize(records, tmp_path / "tokens", TokenizeConfig())
    assert not (tmp_path / "tokens").exists()


def test_a_letter_that_is_no_residue_is_refused_by_accession(tmp_path):
    records = write_records(tmp_path / "records", [*PROTEINS, protein("P4", "MK*")])
    with pytest.raises(DataError, match="P4: a letter of 'MK\\*' is no residue"):
        tokenize(records, tmp_path / "tokens", TokenizeConfig())


def test_another_stages_folder_is_refused(records, tmp_path):
    tokenize(records, tmp_path / "tokens", TokenizeConfig())
    with pytest.raises(ArtifactError, match="made by stage 'tokenize', expected one made by 'ingest'"):
        tokenize(tmp_path / "tokens", tmp_path / "more", TokenizeConfig())


def test_records_with_other_columns_are_refused(tmp_path):
    with new_folder(tmp_path / "records", "ingest", None) as draft:
        pa.parquet.write_table(pa.table({"accession": ["P1"]}), draft.path / PROTEINS_FILE)
        draft.facts.update(label_set="deeploc10", labels=list(DEEPLOC10.locations))
    with pytest.raises(ArtifactError, match=r"columns \['accession'\], expected \['accession', 'sequence'"):
        tokenize(tmp_path / "records", tmp_path / "tokens", TokenizeConfig())


def test_damaged_records_are_refused(records, tmp_path):
    (records / MANIFEST_FILE).unlink()
    with pytest.raises(ArtifactError, match=r"no manifest.json"):
        tokenize(records, tmp_path / "tokens", TokenizeConfig())


@pytest.mark.parametrize("sequences", [[], ["M"], ["MK"], ["MKTA", "X", "ACDEFGHIKLMNPQRSTVWYX"]])
def test_a_column_gets_the_ids_that_single_sequences_get(sequences):
    column = encode_column(pa.array(sequences, pa.large_string()))
    column.validate(full=True)
    assert column.to_pylist() == [encode([sequence])[0].tolist() for sequence in sequences]


def test_a_slice_of_a_column_gets_its_own_ids():
    column = pa.array(["MKTA", "X", "MK"], pa.large_string())
    assert encode_column(column.slice(1)).to_pylist() == [[2, 25, 3], [2, 21, 12, 3]]


def hugging_face_ids(sequences, folder):
    """ProtBERT's published way: BertTokenizer, cased, a space between residues, U Z O B -> X."""
    from transformers import BertTokenizer

    (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    (folder / "config.json").write_text('{"model_type": "bert", "vocab_size": 30}')
    tokenizer = BertTokenizer.from_pretrained(folder, do_lower_case=False)
    spaced = [" ".join(sequence.translate(str.maketrans("UZOB", "XXXX"))) for sequence in sequences]
    return tokenizer(spaced)["input_ids"]


def assert_ids_equal_hugging_face(sequences, folder):
    ours = encode_column(pa.array([clean(sequence) for sequence in sequences], pa.large_string()))
    assert ours.to_pylist() == hugging_face_ids(sequences, folder)


def test_ids_of_all_sample_proteins_equal_the_hugging_face_tokenizers(tmp_path):
    write_sample(tmp_path / "sample.fasta", SampleConfig())
    with (tmp_path / "sample.fasta").open("rb") as stream:
        sequences = [record.sequence for record in read_fasta(stream, "sample.fasta")]
    assert len(sequences) == SampleConfig.num_proteins
    assert_ids_equal_hugging_face(sequences, tmp_path)


def test_ids_of_500_real_proteins_equal_the_hugging_face_tokenizers(deeploc_fasta, tmp_path):
    with deeploc_fasta.open("rb") as stream:
        sequences = [record.sequence for record in read_fasta(stream, deeploc_fasta.name)][::27][:500]
    assert len(sequences) == 500
    assert_ids_equal_hugging_face(sequences, tmp_path)
