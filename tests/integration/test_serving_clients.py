"""Clients that other people wrote, as they come from PyPI, against one real endpoint."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.http as triton_http
from served import Served, served
from tiny_model import LABELS, write_tiny_model
from tritonclient.utils import InferenceServerException

from prottune.serving.sdk import InferInput, InferRequest, messages

_ours, sys.argv = sys.argv, sys.argv[:1]
from kserve import InferenceGRPCClient, InferenceRESTClient, RESTConfig  # noqa: E402
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub  # noqa: E402

sys.argv = _ours

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

SEQUENCES = ["MKTAYIAKQRQISFVKSHFSRQ", "mlll vvva\nfffw", ">sp|P1|X\nMSKSSRRRK*"]
CLEAN = ["MKTAYIAKQRQISFVKSHFSRQ", "MLLLVVVAFFFW", "MSKSSRRRK"]
MEGABYTES = 1
T = TypeVar("T")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def endpoint(folder: Path) -> Iterator[Served]:
    flags = ["--precision", "fp32", "--model-version", "7", f"--max-body-megabytes={MEGABYTES}"]
    with served(folder, "--grpc", *flags) as running:
        yield running


@pytest.fixture(scope="module")
def expected(folder: Path) -> np.ndarray[Any, Any]:
    """Probabilities of the three sequences, from the model itself."""
    from prottune.model.inference import Predictor

    answers = Predictor.load(folder, "fp32").predict(CLEAN)
    return np.stack([answer.probabilities for answer in answers])


def with_kserve_rest(ask: Callable[[InferenceRESTClient], Awaitable[T]], protocol: str) -> T:
    async def once() -> T:
        client = InferenceRESTClient(RESTConfig(protocol=protocol))
        try:
            return await ask(client)
        finally:
            await client.close()

    return asyncio.run(once())


def with_kserve_grpc(endpoint: Served, ask: Callable[[InferenceGRPCClient], Awaitable[T]]) -> T:
    async def once() -> T:
        async with InferenceGRPCClient(endpoint.grpc) as client:
            return await ask(client)

    return asyncio.run(once())


def kserve_request(request_id: str | None = None, *, binary: bool = False) -> InferRequest:
    tensor = InferInput("sequence", [3], "BYTES")
    tensor.set_data_from_numpy(np.array(SEQUENCES, np.object_), binary_data=binary)
    return InferRequest("prottune", [tensor], request_id)


def kserve_outputs(response: Any) -> dict[str, np.ndarray[Any, Any]]:
    return {output.name: output.as_numpy() for output in response.outputs}


def check(outputs: Any, expected: np.ndarray[Any, Any]) -> None:
    """`outputs` gives the tensor of a name."""
    np.testing.assert_allclose(outputs("probabilities"), expected, atol=1e-5)
    np.testing.assert_allclose(outputs("probability"), expected.max(axis=1), atol=1e-5)
    text = [value.decode() if isinstance(value, bytes) else value for value in outputs("location")]
    assert text == [LABELS[best] for best in expected.argmax(axis=1)]
    assert [str(value, "utf-8") if isinstance(value, bytes) else value for value in outputs("classes")] == [
        *LABELS
    ]


def test_kserve_rest_v1(endpoint: Served, expected: np.ndarray[Any, Any]) -> None:
    async def ask(client: InferenceRESTClient) -> Any:
        assert await client.is_model_ready(endpoint.url, "prottune")
        return await client.infer(endpoint.url, {"instances": SEQUENCES}, "prottune")

    answer = with_kserve_rest(ask, "v1")
    assert [entry["accession"] for entry in answer["predictions"]] == [None, None, "P1"]
    rows = [[entry["probabilities"][label] for label in LABELS] for entry in answer["predictions"]]
    np.testing.assert_allclose(rows, expected, atol=1e-5)


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
@pytest.mark.parametrize("request_id", [None, "id-1"])
def test_kserve_rest_v2(
    endpoint: Served, expected: np.ndarray[Any, Any], request_id: str | None, binary: bool
) -> None:
    async def ask(client: InferenceRESTClient) -> Any:
        assert await client.is_server_live(endpoint.url)
        assert await client.is_server_ready(endpoint.url)
        assert await client.is_model_ready(endpoint.url, "prottune")
        return await client.infer(endpoint.url, kserve_request(request_id, binary=binary), "prottune")

    response = with_kserve_rest(ask, "v2")
    assert response.id
    assert request_id in (None, response.id)
    check(kserve_outputs(response).__getitem__, expected)


@pytest.mark.parametrize("binary", [False, True], ids=["typed", "raw"])
def test_kserve_grpc(endpoint: Served, expected: np.ndarray[Any, Any], binary: bool) -> None:
    async def ask(client: InferenceGRPCClient) -> Any:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("prottune")
        return await client.infer(kserve_request("id-2", binary=binary))

    response = with_kserve_grpc(endpoint, ask)
    assert (response.id, response.model_version) == ("id-2", "7")
    check(kserve_outputs(response).__getitem__, expected)


@pytest.mark.parametrize("shape", [[3], [3, 1]])
@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
def test_triton_http(
    endpoint: Served, expected: np.ndarray[Any, Any], binary: bool, shape: list[int]
) -> None:
    client = triton_http.InferenceServerClient(endpoint.host_and_port)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("prottune")
    assert client.get_server_metadata()["name"] == "prottune"
    metadata = client.get_model_metadata("prottune")
    assert metadata["versions"] == ["7"]
    assert metadata["inputs"] == [{"name": "sequence", "datatype": "BYTES", "shape": [-1]}]
    tensor = triton_http.InferInput("sequence", shape, "BYTES")
    tensor.set_data_from_numpy(np.array(SEQUENCES, np.object_).reshape(shape), binary_data=binary)
    check(client.infer("prottune", [tensor]).as_numpy, expected)
    names = [output["name"] for output in metadata["outputs"]]
    asked = [triton_http.InferRequestedOutput(name, binary_data=not binary) for name in names]
    answer = client.infer("prottune", [tensor], outputs=asked, request_id="id-3")
    assert answer.get_response()["id"] == "id-3"
    check(answer.as_numpy, expected)
    client.close()


def test_triton_http_hears_what_is_wrong(endpoint: Served) -> None:
    client = triton_http.InferenceServerClient(endpoint.host_and_port)
    tensor = triton_http.InferInput("sequence", [2], "BYTES")
    tensor.set_data_from_numpy(np.array(["MKT", "MK1"], np.object_))
    with pytest.raises(InferenceServerException, match=r"inputs\[0\]\.data\[1\]: '1' at residue 3"):
        client.infer("prottune", [tensor])
    with pytest.raises(InferenceServerException, match=r"outputs\[0\]\.name: expected one of .*'mood'"):
        client.infer("prottune", [tensor], outputs=[triton_http.InferRequestedOutput("mood")])
    with pytest.raises(InferenceServerException, match="there is no such route"):
        client.unload_model("prottune")
    assert client.is_model_ready("prottune")
    client.close()


def test_triton_grpc(endpoint: Served, expected: np.ndarray[Any, Any]) -> None:
    program = Path(__file__).parents[1] / "triton_over_grpc.py"
    command = [sys.executable, str(program), endpoint.grpc, *SEQUENCES]
    said = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=120).stdout)
    assert (said["live"], said["ready"], said["server"]) == (True, [True, True], "prottune")
    assert said["metadata"] == [
        ["location", "BYTES", [-1]],
        ["probability", "FP32", [-1]],
        ["probabilities", "FP32", [-1, 3]],
        ["classes", "BYTES", [3]],
    ]
    assert (said["id"], said["some"]) == ("id-4", ["classes", "location"])
    numbers = {name: np.array(said["outputs"][name], float) for name in ("probability", "probabilities")}
    check((said["outputs"] | numbers).__getitem__, expected)


def test_over_grpc_refusals_have_their_status_and_say_what_is_wrong(endpoint: Served) -> None:
    tensor = messages.ModelInferRequest.InferInputTensor(name="sequence", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(b"MK1")
    infer, name = messages.ModelInferRequest, "prottune"
    status = grpc.StatusCode
    with grpc.insecure_channel(endpoint.grpc) as channel:
        stub = GRPCInferenceServiceStub(channel)
        load, unload = stub.RepositoryModelLoad, stub.RepositoryModelUnload
        cases = [
            (stub.ModelInfer, infer(model_name=name, inputs=[tensor]), status.INVALID_ARGUMENT, "residue 3"),
            (stub.ModelInfer, infer(model_name=name), status.INVALID_ARGUMENT, "inputs: expected one"),
            (stub.ModelInfer, infer(model_name="nobody"), status.NOT_FOUND, "nobody"),
            (stub.ModelInfer, infer(model_name=name, model_version="8"), status.NOT_FOUND, "version '8'"),
            (stub.ModelReady, messages.ModelReadyRequest(name="nobody"), status.NOT_FOUND, "nobody"),
            (load, messages.RepositoryModelLoadRequest(model_name=name), status.UNIMPLEMENTED, "unloaded"),
            (unload, messages.RepositoryModelUnloadRequest(model_name=name), status.UNIMPLEMENTED, "unload"),
            (
                stub.ModelInfer,
                infer(model_name=name, raw_input_contents=[b"M" * (MEGABYTES << 20)]),
                status.RESOURCE_EXHAUSTED,
                "larger than max",
            ),
        ]
        for call, request, code, words in cases:
            with pytest.raises(grpc.RpcError) as caught:
                call(request, timeout=30)
            assert (caught.value.code(), words in caught.value.details()) == (code, True), caught.value
        index = channel.unary_unary("/inference.GRPCInferenceService/RepositoryIndex")
        with pytest.raises(grpc.RpcError) as caught:
            index(b"", timeout=30)
        assert caught.value.code() is status.UNIMPLEMENTED
        assert stub.ModelReady(messages.ModelReadyRequest(name=name), timeout=30).ready
    assert httpx.get(f"{endpoint.url}/v2/models/prottune/ready").json()["ready"] is True


def test_grpc_listens_on_this_machine_only(endpoint: Served) -> None:
    assert endpoint.grpc.startswith("127.0.0.1:")


@pytest.mark.parametrize("with_id", [False, True])
@pytest.mark.parametrize("header", [[], ["-H", "Content-Type:"], ["-H", "Content-Type: application/json"]])
def test_curl_whatever_content_type_it_claims(
    endpoint: Served, expected: np.ndarray[Any, Any], header: list[str], with_id: bool
) -> None:
    assert shutil.which("curl"), "curl is absent (apt-get install curl)"

    def curl(path: str, body: Any) -> Any:
        command = ["curl", "--silent", "--fail-with-body", "--noproxy", "*", *header]
        command += ["--data", json.dumps(body), endpoint.url + path]
        return json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)

    v1 = curl("/v1/models/prottune:predict", {"instances": SEQUENCES})
    rows = [[entry["probabilities"][label] for label in LABELS] for entry in v1["predictions"]]
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    tensor = {"name": "sequence", "shape": [3], "datatype": "BYTES", "data": SEQUENCES}
    v2 = curl("/v2/models/prottune/infer", {"inputs": [tensor]} | ({"id": "mine"} if with_id else {}))
    assert (v2["id"] == "mine") is with_id
    outputs = {output["name"]: np.reshape(output["data"], output["shape"]) for output in v2["outputs"]}
    check(outputs.__getitem__, expected)
