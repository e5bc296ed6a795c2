"""A bare KServe ModelServer as a program of its own: `python -m benchmarks.stock_server --port 0`.

With `--model DIR` it answers as huggingfaceserver does (`benchmarks/stock_model.py`), in the event loop, as
KServe's own encoder model calls torch too; without, a model that does nothing answers at once. Its one
change: it listens on this machine only, where KServe's takes every address.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from prottune.serving.settings import MODEL_NAME

NOTHING = {"location": "Nucleus", "probability": 0.5}


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stock_server", description=__doc__)
    parser.add_argument("--model", type=Path, help="model folder; without one nothing is computed")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args(words)
    sys.argv = sys.argv[:1]  # KServe reads it when it is imported
    threading.Thread(target=end_with_our_starter, daemon=True).start()
    import kserve.model_server

    class LocalServer(kserve.model_server.RESTServer):  # type: ignore[misc]
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            self.config.host = "127.0.0.1"

    kserve.model_server.RESTServer = LocalServer
    model = _model(arguments.model, arguments.dtype)
    asyncio.set_event_loop(asyncio.new_event_loop())
    kserve.model_server.ModelServer(http_port=arguments.port, enable_grpc=False).start([model])


def _model(folder: Path | None, dtype: str) -> Any:
    import kserve

    if folder is None:
        answer = _answer_nothing
    else:
        import torch

        from benchmarks.stock_model import StockModel

        answer = StockModel(folder, getattr(torch, dtype)).predict

    class Answering(kserve.Model):  # type: ignore[misc]
        async def predict(self, payload: Any, *_: Any, **__: Any) -> Any:
            return {"predictions": answer(payload["instances"])}

    model = Answering(MODEL_NAME)
    model.ready = True
    return model


def _answer_nothing(sequences: list[str]) -> list[Any]:
    return [NOTHING for _ in sequences]


def end_with_our_starter() -> None:
    """Wait for the end of standard input, which our starter holds, and end this program."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
