"""The GPU's flash attention over packed rows against the loop that every device runs."""

import pytest
import torch

from prottune.alphabet import encode
from prottune.model import packed
from prottune.model.base import load_base
from prottune.model.packed import PackedBatch
from tests.model.small_encoders import write_base, write_esm_base
from tests.model.small_models import LABELS, random_sequence, small_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="not run here: no GPU"),
]


def cuda_batch(*lengths):
    return PackedBatch.from_ids([encode([random_sequence(length)])[0] for length in lengths]).to("cuda")


def model_of(family, head, folder):
    if family == "bert":
        return small_model(head)
    base = write_esm_base(folder / "base") if family == "esm" else write_base(folder / "base", family)
    return load_base(str(base), "", head, LABELS, 0.0).eval()


def attention_and_gradients(batch, dtype, inputs, pull, family):
    """BERT leaves the scale of queries to attention; ESM scales them itself and asks for a scale of 1."""
    query, key, value = (tensor.to("cuda", dtype, copy=True).requires_grad_() for tensor in inputs)
    scale = query.shape[-1] ** -0.5
    scaled, scaling = (query, scale) if family == "bert" else (query * scale, 1.0)
    attended, _ = packed.packed_attention(
        torch.nn.Module(), scaled, key, value, None, batch=batch, scaling=scaling
    )
    (attended.float() * pull).sum().backward()
    return [attended, query.grad, key.grad, value.grad]


@pytest.mark.parametrize("width", [16, 24, 64, 20], ids=lambda width: f"heads of {width}")
@pytest.mark.parametrize("family", ["bert", "esm"])
def test_bf16_flash_attention_equals_the_fp32_loop_in_outputs_and_gradients(family, width):
    """A width of 20 has no flash kernel and takes the loop in both."""
    batch = cuda_batch(1, 300, 40, 1000, 7)
    torch.manual_seed(0)
    inputs = [torch.randn(1, 4, batch.num_tokens, width) for _ in range(3)]
    pull = torch.randn(1, batch.num_tokens, 4, width, device="cuda")
    exact = attention_and_gradients(batch, torch.float32, inputs, pull, family)
    fast = attention_and_gradients(batch, torch.bfloat16, inputs, pull, family)
    for expected, found in zip(exact, fast, strict=True):
        torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("head", ["cls", "mean", "attention"])
@pytest.mark.parametrize("family", ["bert", "esm", "roformer"])
def test_a_model_answers_on_the_gpu_as_on_the_cpu(tmp_path, family, head):
    model, batch = model_of(family, head, tmp_path), cuda_batch(1, 250, 33)
    with torch.inference_mode():
        on_cpu_BC = model(batch.to("cpu"))
        on_gpu_BC = model.to("cuda")(batch)
        with torch.autocast("cuda", torch.bfloat16):
            in_bf16_BC = model(batch)
    torch.testing.assert_close(on_gpu_BC.cpu(), on_cpu_BC, rtol=0, atol=1e-3)
    torch.testing.assert_close(in_bf16_BC.cpu(), on_cpu_BC, rtol=0, atol=0.2)
