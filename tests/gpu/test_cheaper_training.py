"""On a GPU: activations computed again, adapters and cached features, through flash attention in bf16."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from prottune.model.packed import PackedBatch
from prottune.training.adaptation import adapt, merge_adapters
from prottune.training.settings import TrainConfig
from tests.gpu.test_packed_attention import cuda_batch
from tests.model.small_models import small_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="not run here: no GPU"),
]

LORA = TrainConfig(lora_rank=4, freeze_layers=1)


def gradients(config: TrainConfig, batch: PackedBatch) -> dict[str, torch.Tensor]:
    model = small_model("attention")
    adapt(model, config)
    model.to("cuda").train()
    with torch.autocast("cuda", torch.bfloat16):
        loss = F.cross_entropy(model(batch), torch.arange(3, device="cuda"))
    torch.autograd.backward(loss)
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("config", [TrainConfig(), LORA])
def test_gradients_are_the_same_when_activations_are_computed_again(config: TrainConfig) -> None:
    batch = cuda_batch(200, 31, 1)
    expected = gradients(config, batch)
    found = gradients(replace(config, gradient_checkpointing=True), batch)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        # Flash attention adds up gradients in any order.
        torch.testing.assert_close(found[name], gradient, rtol=0.02, atol=1e-4, msg=name)


def test_a_merged_model_answers_as_with_adapters() -> None:
    batch = cuda_batch(200, 31, 1)
    model = small_model("mean")
    adapt(model, LORA)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.to("cuda").eval()
    with torch.no_grad():
        with_adapters = model(batch)
        merge_adapters(model)
        torch.testing.assert_close(model(batch), with_adapters, rtol=0, atol=1e-4)


def test_vectors_known_before_give_the_answers_of_the_encoder() -> None:
    batch = cuda_batch(200, 31, 1)
    model = small_model("attention").to("cuda")
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        known = replace(batch.to("cpu"), hidden_TD=model.encode(batch).to("cpu", torch.bfloat16)).to("cuda")
        torch.testing.assert_close(model(known), model(batch), rtol=0.02, atol=0.02)
