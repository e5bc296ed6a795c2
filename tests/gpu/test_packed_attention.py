"""The GPU's flash attention over packed rows against the loop that every device runs."""

import pytest
import torch

from prottune.alphabet import encode
from prottune.model import packed
from prottune.model.packed import PackedBatch
from tests.model.small_models import random_sequence, small_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="not run here: no GPU"),
]


def cuda_batch(*lengths):
    return PackedBatch.from_ids([encode([random_sequence(length)])[0] for length in lengths]).to("cuda")


def attention_and_gradients(batch, dtype, inputs, pull):
    tensors = [tensor.to("cuda", dtype, copy=True).requires_grad_() for tensor in inputs]
    attended, _ = packed.packed_attention(torch.nn.Module(), *tensors, None, batch=batch, scaling=64**-0.5)
    (attended.float() * pull).sum().backward()
    return [attended, *(tensor.grad for tensor in tensors)]


def test_bf16_flash_attention_equals_the_fp32_loop_in_outputs_and_gradients():
    batch = cuda_batch(1, 300, 40, 1000, 7)
    torch.manual_seed(0)
    inputs = [torch.randn(1, 4, batch.num_tokens, 64) for _ in range(3)]
    pull = torch.randn(1, batch.num_tokens, 4, 64, device="cuda")
    exact = attention_and_gradients(batch, torch.float32, inputs, pull)
    fast = attention_and_gradients(batch, torch.bfloat16, inputs, pull)
    for expected, found in zip(exact, fast, strict=True):
        torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("head", ["cls", "mean", "attention"])
def test_a_model_answers_on_the_gpu_as_on_the_cpu(head):
    model, batch = small_model(head), cuda_batch(1, 250, 33)
    with torch.inference_mode():
        on_cpu_BC = model(batch.to("cpu"))
        on_gpu_BC = model.to("cuda")(batch)
        with torch.autocast("cuda", torch.bfloat16):
            in_bf16_BC = model(batch)
    torch.testing.assert_close(on_gpu_BC.cpu(), on_cpu_BC, rtol=0, atol=1e-3)
    torch.testing.assert_close(in_bf16_BC.cpu(), on_cpu_BC, rtol=0, atol=0.2)
