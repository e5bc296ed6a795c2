"""Real MLflow stores for tests: the schema takes seconds to create, so it is made once and copied."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from prottune.tracking.mlflow_store import mlflow_client


@cache
def _template() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="prottune-mlflow-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    mlflow_client(f"sqlite:///{folder}/mlflow.db").search_experiments()
    return folder / "mlflow.db"


def new_store(folder: Path) -> str:
    """Put an empty MLflow store into a folder; returns its tracking address."""
    shutil.copy(_template(), folder / "mlflow.db")
    return f"sqlite:///{folder}/mlflow.db"
