"""docs/operations.md names flags, objects and headings that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from small_store import Store

from pipelines import manifests
from pipelines.backend import BackendFlags
from pipelines.checks.surroundings import DoctorFlags
from pipelines.parameters import submit_flags, values_of
from pipelines.scheduling import Schedule
from pipelines.submitting import SubmitFlags, check_for_pods
from prottune.flags import parse_flags

PAGE = Path(__file__).parents[2] / "docs/operations.md"
FLAGS = {
    "submit": submit_flags("finetune", SubmitFlags),
    "schedule": BackendFlags,
    "doctor": DoctorFlags,
}
OF_OTHERS = {"service/ml-pipeline-ui", "service/prottune-predictor", "service/prottune-store"}
"""Made by Kubeflow Pipelines, by KServe for the InferenceService, and by the overlay `local`."""


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


def test_every_schedule_that_is_shown_would_be_taken(page: str) -> None:
    shown = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (schedule,) = (Schedule(**yaml.safe_load(text)) for text in shown)
    (submitted,) = re.findall(
        r"^python -m pipelines (submit .*--base-model small.*)", page.replace("\\\n", ""), re.M
    )
    flags = parse_flags(FLAGS["submit"], shlex.split(submitted)[1:], "submit", "")
    defaults = parse_flags(FLAGS["submit"], ["--source", schedule.parameters["source"]], "submit", "")
    ordered, usual = (values_of(each, "finetune") for each in (flags, defaults))
    changed = {name: value for name, value in ordered.items() if value != usual[name] or name == "source"}
    assert schedule.parameters.items() >= changed.items(), "the schedule trains what the command trains"


def test_the_proteins_get_into_the_store_as_it_is_said(
    page: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deeploc_data.fasta").write_text(">a\nMKT\n")
    programs = re.findall(r'^python -c "(.*)"', page, re.MULTILINE)
    assert len(programs) == 2
    for program in programs:
        exec(program, {})
    assert store.puts == ["prottune", "prottune/data/deeploc1.fasta"], "the bucket first"
    assert store.objects["prottune/data/deeploc1.fasta"] == b">a\nMKT\n"


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
