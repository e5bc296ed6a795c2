import os
from pathlib import Path

from prottune.errors import DivergedError
from prottune.training.job import read_failure, write_failure
from prottune.training.processes import launched_by_torchrun, rank_environment


def test_cores_are_shared_out_unless_the_user_decided() -> None:
    cores = len(os.sched_getaffinity(0))
    assert rank_environment(1, {})["OMP_NUM_THREADS"] == str(cores)
    assert rank_environment(cores * 2, {})["OMP_NUM_THREADS"] == "1"
    assert rank_environment(1, {"OMP_NUM_THREADS": "7"})["OMP_NUM_THREADS"] == "7"
    assert rank_environment(1, {"GLOO_SOCKET_IFNAME": "eth9"})["GLOO_SOCKET_IFNAME"] == "eth9"
    assert rank_environment(1, {"HOME": "/home/u"})["HOME"] == "/home/u"


def test_a_launcher_is_known_by_all_that_torchrun_sets() -> None:
    environment = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    assert launched_by_torchrun(environment)
    assert not launched_by_torchrun({"RANK": "0"})


def test_an_error_of_ours_crosses_by_name_and_wins_over_a_crash_of_a_lower_rank(tmp_path: Path) -> None:
    write_failure(ConnectionResetError("peer went away"), 0, tmp_path)
    write_failure(DivergedError("training diverged at step 3"), 1, tmp_path)
    error = read_failure(tmp_path)
    assert type(error) is DivergedError
    assert str(error) == "training diverged at step 3"
    assert error.exit_code == 4


def test_a_crash_crosses_with_its_traceback(tmp_path: Path) -> None:
    try:
        {}["absent"]
    except KeyError as error:
        write_failure(error, 1, tmp_path)
    found = read_failure(tmp_path)
    assert type(found) is RuntimeError
    assert "KeyError: 'absent'" in str(found)
    assert "test_rank_processes.py" in str(found)


def test_without_a_word_from_the_ranks_there_is_no_failure_to_read(tmp_path: Path) -> None:
    assert read_failure(tmp_path) is None
