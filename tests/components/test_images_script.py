"""`make images`: which builder is taken, what it is told, what is printed. No image is built here."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from prottune import __version__

SCRIPT = Path(__file__).parents[2] / "components" / "images.sh"
TOOLS = ("sh", "sed", "awk", "git", "dirname", "cat")
BUILDER = """#!/bin/sh
case "$1 $2" in
    "build "*) echo "$0 $*" >> "$LOG"; echo building ;;
    "image inspect") echo 123456789 ;;
    "images --format") echo "118 MB" ;;
esac
"""


@pytest.fixture
def binaries(tmp_path: Path) -> Path:
    """A PATH with no builder on it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    return folder


def has(binaries: Path, *builders: str) -> None:
    for name in builders:
        (binaries / name).write_text(BUILDER)
        (binaries / name).chmod(0o755)


def images(binaries: Path, **settings: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run the script; returns how it ended, and the builds."""
    log = binaries.parent / "log"
    log.touch()
    environment = {"PATH": str(binaries), "LOG": str(log), "HOME": os.environ["HOME"]} | settings
    done = subprocess.run([SCRIPT], env=environment, capture_output=True, text=True, check=False)
    return done, log.read_text().splitlines()


def test_without_a_builder_one_line_says_what_to_do_and_the_exit_code_is_2(binaries: Path) -> None:
    done, builds = images(binaries)
    assert (done.returncode, done.stdout, builds) == (2, "", [])
    assert done.stderr == (
        "images: got no docker, podman or buildah here, expected docker, podman or buildah; "
        "install one of them, or name it: make images CONTAINER_BUILDER=/path/to/podman\n"
    )


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        (("buildah", "podman", "docker"), "docker"),
        (("buildah", "podman"), "podman"),
        (("buildah",), "buildah"),
    ],
)
def test_the_first_builder_that_is_there_builds_both_images(
    there: tuple[str, ...], taken: str, binaries: Path
) -> None:
    has(binaries, *there)
    done, builds = images(binaries)
    assert done.returncode == 0, done.stderr
    size = "118 MB" if taken == "buildah" else "123 MB"
    names = [f"prottune-light:{__version__}", f"prottune-torch:{__version__}"]
    assert done.stdout.splitlines() == [f"{name}  {size}" for name in names]
    assert [line.split()[0] for line in builds] == [str(binaries / taken)] * 2
    for line, name, target in zip(builds, names, ("light", "torch"), strict=True):
        assert f" --target {target} --tag {name} --file components/Dockerfile ." in line
        assert f"--build-arg VERSION={__version__} " in line
        assert "--build-arg TORCH=cpu " in line
        assert (" --layers " in line) == (taken == "buildah")


def test_names_torch_and_places_of_packages_are_chosen_by_variables(binaries: Path) -> None:
    has(binaries, "docker", "podman")
    done, builds = images(
        binaries,
        CONTAINER_BUILDER=str(binaries / "podman"),
        REGISTRY="registry.example/lab",
        TAG="7",
        TORCH="cuda",
        BASE="base:1",
        PIP_FIND_LINKS="http://a http://b",
        BUILD_FLAGS="--network host",
    )
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "registry.example/lab/prottune-light:7",
        "registry.example/lab/prottune-torch:7",
    ]
    assert len(builds) == 2
    for line in builds:
        assert line.startswith(f"{binaries / 'podman'} build ")
        assert "--build-arg TORCH=cuda --build-arg BASE=base:1 " in line
        assert "--build-arg PIP_FIND_LINKS=http://a http://b --network host --target" in line
        assert "PIP_INDEX_URL" not in line


def test_the_registry_is_by_default_the_one_that_runs_take_their_images_from(binaries: Path) -> None:
    has(binaries, "docker")
    done, _ = images(binaries, PROTTUNE_REGISTRY="registry.example/lab")
    assert done.stdout.startswith(f"registry.example/lab/prottune-light:{__version__}  ")


def test_another_kind_of_torch_is_refused_before_anything_is_built(binaries: Path) -> None:
    has(binaries, "docker")
    done, builds = images(binaries, TORCH="rocm")
    assert (done.returncode, builds) == (2, [])
    assert done.stderr == "images: TORCH=rocm: expected cpu or cuda\n"


def test_a_build_that_fails_ends_it(binaries: Path) -> None:
    (binaries / "docker").write_text("#!/bin/sh\nexit 5\n")
    (binaries / "docker").chmod(0o755)
    done, _ = images(binaries)
    assert (done.returncode, done.stdout) == (5, "")
