"""The parts of KServe's SDK that we use. Importing it parses `sys.argv`, so it is shown none."""

import sys

_ours, sys.argv = sys.argv, sys.argv[:1]
try:
    from kserve import InferInput, InferOutput, InferRequest, InferResponse, Model, ModelRepository
    from kserve.errors import InvalidInput, ModelNotFound, ModelNotReady, ServerNotReady
    from kserve.model import InferenceVerb
    from kserve.protocol.dataplane import DataPlane
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
    from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import (
        GRPCInferenceServiceServicer,
        add_GRPCInferenceServiceServicer_to_server,
    )
    from kserve.protocol.infer_type import RequestedOutput
    from kserve.protocol.rest.server import metrics_handler
    from kserve.protocol.rest.v1_endpoints import V1Endpoints
    from kserve.protocol.rest.v2_endpoints import V2Endpoints
finally:
    sys.argv = _ours

__all__ = [
    "DataPlane",
    "GRPCInferenceServiceServicer",
    "InferInput",
    "InferOutput",
    "InferRequest",
    "InferResponse",
    "InferenceVerb",
    "InvalidInput",
    "Model",
    "ModelNotFound",
    "ModelNotReady",
    "ModelRepository",
    "RequestedOutput",
    "ServerNotReady",
    "V1Endpoints",
    "V2Endpoints",
    "add_GRPCInferenceServiceServicer_to_server",
    "messages",
    "metrics_handler",
]
