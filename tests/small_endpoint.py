"""What a right endpoint answers about two proteins, in both protocols; its model is that K means nucleus."""

from __future__ import annotations

from typing import Any

CLASSES = ["Nucleus", "Plastid"]
GOLDEN = [
    {
        "accession": "G1",
        "sequence": "MKKKKKKKKKKKRR",
        "location": "Nucleus",
        "probabilities": {"Nucleus": 0.75, "Plastid": 0.25},
    },
    {
        "accession": "G2",
        "sequence": "MSS",
        "location": "Plastid",
        "probabilities": {"Nucleus": 0.25, "Plastid": 0.75},
    },
]


def nucleus(sequence: str) -> float:
    """The endpoint's model: K means nucleus; it reads sequences as people write them."""
    return 0.75 if "K" in "".join(sequence.split()).upper() else 0.25


def right_answer(path: str, body: dict[str, Any], version: str = "7") -> dict[str, Any]:
    if path == "/v1/models/prottune:predict":
        answers = []
        for sequence in body["instances"]:
            share = nucleus(sequence)
            location, best = ("Nucleus", share) if share > 0.5 else ("Plastid", 1 - share)
            probabilities = {"Nucleus": share, "Plastid": 1 - share}
            answers.append(
                {"location": location, "probability": best, "probabilities": probabilities, "membrane": None}
            )
        return {"predictions": answers, "model_version": version}
    assert path == "/v2/models/prottune/infer"
    shares = [nucleus(sequence) for sequence in body["inputs"][0]["data"]]
    outputs = {
        "location": ["Nucleus" if share > 0.5 else "Plastid" for share in shares],
        "probability": [max(share, 1 - share) for share in shares],
        "probabilities": [value for share in shares for value in (share, 1 - share)],
        "classes": CLASSES,
    }
    return {
        "model_version": version,
        "outputs": [{"name": name, "data": data} for name, data in outputs.items()],
    }
