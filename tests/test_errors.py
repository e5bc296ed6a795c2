"""The exception tree and its exit codes."""

import pytest

from prottune import errors


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("ConfigError", 2),
        ("DataError", 2),
        ("ArtifactError", 2),
        ("StorageError", 3),
        ("TrackingError", 3),
        ("DeploymentError", 3),
        ("DivergedError", 4),
    ],
)
def test_every_refusal_has_its_documented_exit_code(name: str, code: int) -> None:
    assert errors.error_named(name).exit_code == code


def test_a_name_outside_the_tree_is_not_found() -> None:
    with pytest.raises(LookupError, match="SystemExit"):
        errors.error_named("SystemExit")
