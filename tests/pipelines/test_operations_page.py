"""docs/operations.md names flags, objects and headings that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from pipelines import manifests
from pipelines.backend import BackendFlags
from pipelines.checks.surroundings import DoctorFlags
from pipelines.parameters import submit_flags, values_of
from pipelines.submitting import SubmitFlags, check_for_pods
from prottune.flags import parse_flags

PAGE = Path(__file__).parents[2] / "docs/operations.md"
FLAGS = {
    "submit": submit_flags("finetune", SubmitFlags),
    "schedule": BackendFlags,
    "doctor": DoctorFlags,
}
OF_OTHERS = {"service/ml-pipeline-ui", "service/prottune-predictor"}
"""Made by Kubeflow Pipelines, and by KServe for the InferenceService."""


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_every_command_of_the_operators_program_would_be_taken(page: str) -> None:
    found = re.findall(r"^(?: {4})?python -m pipelines (.*)", page.replace("\\\n", ""), re.MULTILINE)
    assert len(found) >= 7
    for line in found:
        verb, *words = shlex.split(line, comments=True)
        flags = parse_flags(FLAGS[verb], words[1:] if verb == "schedule" else words, verb, "")
        if verb == "submit":
            check_for_pods("finetune", values_of(flags, "finetune"))


def test_every_object_that_kubectl_is_asked_for_is_in_the_manifests(page: str) -> None:
    named = set(re.findall(r"\b((?:deployment|service)/[a-z-]+)", page))
    made = {
        f"{kind.lower()}/{each['metadata']['name']}"
        for kind in ("Deployment", "Service")
        for each in manifests.objects(kind)
    }
    assert named - OF_OTHERS <= made


def test_every_overlay_and_no_other_is_described(page: str) -> None:
    table = page.partition("| overlay |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `([a-z-]+)` ", table, re.MULTILINE)) == set(manifests.OVERLAYS)


def test_links_within_the_docs_lead_to_headings_and_files(page: str) -> None:
    for target, anchor in re.findall(r"\]\(([\w./-]*)(?:#([\w-]+))?\)", page):
        file = PAGE.parent / target if target else PAGE
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)", file.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{target}#{anchor}"
