"""What a build in a container is told of this machine's packages."""

import urllib.request
from pathlib import Path

from offered_packages import offered_packages, places_of_packages

LISTING = """\
:env:.cert='/etc/bundle.crt'
:env:.find-links='/wheels'
global.extra-index-url='file:///index/simple https://packages.example/simple'
global.find-links='/older'
"""


def test_places_are_read_from_pips_own_settings_and_the_environment_wins() -> None:
    assert places_of_packages(LISTING) == {
        "PIP_EXTRA_INDEX_URL": ["file:///index/simple", "https://packages.example/simple"],
        "PIP_FIND_LINKS": ["/wheels"],
    }


def test_folders_are_served_without_their_names_and_addresses_stay(tmp_path: Path) -> None:
    served, index, wheels = (tmp_path / name for name in ("served", "index", "wheels"))
    for folder in (served, index / "simple" / "a", index / "files", wheels):
        folder.mkdir(parents=True)
    (index / "files" / "a.whl").write_text("from the index")
    (wheels / "b.whl").write_text("from the folder")
    places = {
        "PIP_EXTRA_INDEX_URL": [f"file://{index}/simple", "https://packages.example/simple"],
        "PIP_FIND_LINKS": [str(wheels)],
    }
    with offered_packages(places, served) as settings:
        ours, theirs = settings["PIP_EXTRA_INDEX_URL"].split()
        assert theirs == "https://packages.example/simple"
        assert _got(f"{ours}/a/../../files/a.whl") == "from the index"
        assert _got(f"{settings['PIP_FIND_LINKS']}b.whl") == "from the folder"
    assert str(tmp_path) not in str(settings)


def _got(url: str) -> str:
    with urllib.request.urlopen(url) as answer:
        return str(answer.read().decode())
