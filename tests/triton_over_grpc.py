"""Triton's gRPC client in a process of its own: KServe's stubs define the same messages, and a process takes
them once.

    python tests/triton_over_grpc.py HOST:PORT SEQUENCE...

prints what it was told as JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import tritonclient.grpc as triton


def ask(address: str, sequences: list[str]) -> dict[str, Any]:
    client = triton.InferenceServerClient(address)
    tensor = triton.InferInput("sequence", [len(sequences)], "BYTES")
    tensor.set_data_from_numpy(np.array(sequences, np.object_))
    answer = client.infer("prottune", [tensor], request_id="id-4", client_timeout=30)
    asked = [triton.InferRequestedOutput("classes"), triton.InferRequestedOutput("location")]
    some = client.infer("prottune", [tensor], outputs=asked).get_response()
    metadata = client.get_model_metadata("prottune")
    return {
        "live": client.is_server_live(),
        "ready": [client.is_server_ready(), client.is_model_ready("prottune", "7")],
        "server": client.get_server_metadata().name,
        "metadata": [[entry.name, entry.datatype, list(entry.shape)] for entry in metadata.outputs],
        "id": answer.get_response().id,
        "some": [output.name for output in some.outputs],
        "outputs": {
            output.name: answer.as_numpy(output.name).astype(str).tolist()
            for output in answer.get_response().outputs
        },
    }


if __name__ == "__main__":
    print(json.dumps(ask(sys.argv[1], sys.argv[2:])))
