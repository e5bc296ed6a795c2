"""ONNX Runtime and OpenVINO as peers: the model of a folder, exported once, with the settings that suit them.

They are handed ids that our own tokenizer made: only the engines are compared.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.rows import NotRun
from benchmarks.stock_model import StockModel
from prottune.alphabet import encode
from prottune.machine import num_cores

Engine = Callable[[str], npt.NDArray[np.float32]]
"""Answers for one protein: its probabilities."""


def export(stock: StockModel, path: Path) -> Path:
    """Write the model as ONNX, fp32, for one protein of any length; returns the file."""
    try:
        import onnxscript  # noqa: F401 - what torch's exporter needs
    except ImportError:
        raise NotRun("not run: needs the packages of requirements/peers.in (make bench)") from None
    example = torch.from_numpy(_ids("MKTAYIAKQR" * 20))
    torch.onnx.export(
        _LogitsOfIds(stock.model),
        (example,),
        path,
        input_names=["input_ids"],
        output_names=["logits"],
        dynamic_shapes={"input_ids": {1: torch.export.Dim("length", min=3, max=1024)}},
        dynamo=True,
        verbose=False,
    )
    return path


class _LogitsOfIds(torch.nn.Module):
    """The model with the one input that varies: a single protein needs no mask and has one segment."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids=input_ids).logits
        return logits


def onnx_runtime(path: Path, *, spinning: bool, threads: int = 0) -> Engine:
    """A session of ONNX Runtime in fp32, all optimizations on."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads or num_cores()
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def answer(sequence: str) -> npt.NDArray[np.float32]:
        (logits_1C,) = session.run(["logits"], {"input_ids": _ids(sequence)})
        return _softmax(logits_1C)

    return answer


def openvino(path: Path, precision: str) -> Engine:
    """A model of OpenVINO compiled for latency; `precision`: f32, or bf16 as the hint allows."""
    import openvino

    core = openvino.Core()
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": num_cores(),
    }
    request = core.compile_model(core.read_model(str(path)), "CPU", settings).create_infer_request()

    def answer(sequence: str) -> npt.NDArray[np.float32]:
        request.infer({0: _ids(sequence)})
        return _softmax(request.get_output_tensor(0).data)

    return answer


def _ids(sequence: str) -> npt.NDArray[np.int64]:
    return encode([sequence])[0].astype(np.int64)[None]


def _softmax(logits_1C: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    weights = np.exp(logits_1C[0] - logits_1C[0].max())
    return (weights / weights.sum()).astype(np.float32)
