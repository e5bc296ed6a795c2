"""What of a model learns: which layers stay as they are, where adapters learn beside them, what is kept.

Lower layers hold what proteins have in common and change least, so they are the ones to freeze. Nothing of a
frozen part costs memory in training: no gradient, no activations, no optimizer state, no exchange.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from prottune.errors import ConfigError
from prottune.model.classifier import LocationModel
from prottune.training.settings import TrainConfig

_log = logging.getLogger(__name__)


def adapt(model: LocationModel, config: TrainConfig) -> None:
    """Make a new model learn only where its settings say; the head always learns as a whole.

    Adapters start from torch's random state, and from no effect: the model answers as before.

    Raises: ConfigError if the model has fewer layers than are to be frozen, no matrix of a name that is to
        get an adapter, or layers that cannot compute their activations again.
    """
    if not _touches_layers(config):
        return
    layers = list(model.layers())
    num_frozen = config.num_frozen(len(layers))
    learning = layers[num_frozen:]
    still = [model.embeddings(), *layers[:num_frozen]] if num_frozen else []
    if config.lora_rank or not learning:
        for parameter in model.encoder_parameters():
            parameter.requires_grad_(False)
    for part in still:
        part.requires_grad_(False)
    if config.lora_rank:
        _add_adapters(learning, config)
    if config.gradient_checkpointing:
        _compute_activations_again(learning)
    facts = adaptation_facts(model, config)
    _log.info("%s", ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items()))


def adaptation_facts(model: LocationModel, config: TrainConfig) -> dict[str, str]:
    """What of a model learns, for people; nothing if the settings say nothing of it."""
    if not _touches_layers(config):
        return {}
    num_layers = len(model.layers())
    num_frozen = config.num_frozen(num_layers)
    numbers = [parameter.numel() for parameter in model.parameters() if parameter.requires_grad]
    speed_up = predicted_speed_up(num_layers, num_frozen, config.gradient_checkpointing)
    return {
        "trained_parameters": f"{sum(numbers):,}",
        "frozen_layers": f"{num_frozen} of {num_layers}",
        "predicted_speed_up": f"{speed_up:.2f}",
    }


def predicted_speed_up(num_layers: int, num_frozen: int, goes_again: bool = False) -> float:
    """How many times as fast a step is when the lower layers are frozen, if layers are all that costs time.

    Source: forward costs one unit a layer; backward two, one for the weights and one for what lies below.
    Frozen lower layers need neither of the two. Activations that are computed again cost one unit more.
    """
    after_forward = 3 if goes_again else 2
    return 3 * num_layers / (num_layers + after_forward * (num_layers - num_frozen))


def rest_frozen_parts(model: LocationModel, config: TrainConfig) -> None:
    """Put embeddings and layers in which nothing learns into evaluation mode: no dropout in what is fixed.

    So their outputs are the same in every epoch, kept or computed again. To be called after `train()`.
    """
    if not _touches_layers(config):
        return
    for part in (model.embeddings(), *model.layers()):
        if not any(parameter.requires_grad for parameter in part.parameters()):
            part.eval()


def is_encoder_frozen(model: LocationModel) -> bool:
    """Whether nothing below the head learns."""
    return not any(parameter.requires_grad for parameter in model.encoder_parameters())


def trained_weights(model: LocationModel) -> dict[str, Tensor]:
    """A copy, on the host, of all that training changes; with the rest of the model it is the model."""
    return {
        name: parameter.detach().to("cpu", copy=True)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def merge_adapters(model: LocationModel) -> None:
    """Add what the adapters learned to the matrices beside them; nothing of the adapters is left."""
    from peft.tuners.lora import LoraLayer

    adapted = [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)]
    for name, module in adapted:
        module.merge()
        model.set_submodule(name, module.get_base_layer())
    for layer in model.layers():
        layer.__dict__.pop("peft_config", None)


def _touches_layers(config: TrainConfig) -> bool:
    """Whether a setting names layers; without one no encoder is asked which it has."""
    return bool(config.freeze_layers or config.lora_rank or config.gradient_checkpointing)


def _add_adapters(layers: Sequence[nn.Module], config: TrainConfig) -> None:
    """Beside each chosen matrix W of these layers, learn a product B A of low rank; W stays as it is.

    Source: Hu et al. 2021, "LoRA: low-rank adaptation of large language models": query and value, B from 0.
    """
    from peft import LoraConfig, inject_adapter_in_model

    names = config.lora_target_names
    for layer in layers:
        found = {
            name.rpartition(".")[2] for name, part in layer.named_modules() if isinstance(part, nn.Linear)
        }
        if missing := sorted(set(names) - found):
            raise ConfigError(
                f"lora_targets={config.lora_targets!r}: layers of the base model have no matrix "
                f"{', '.join(missing)}; they have {', '.join(sorted(found))}"
            )
        # Layer by layer: of a whole transformers model peft would want to know the kind of task.
        adapters = LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules=list(names))
        inject_adapter_in_model(adapters, layer)


def _compute_activations_again(layers: Sequence[nn.Module]) -> None:
    """Let these layers keep their inputs only, and go forward a second time when gradients are needed.

    Not transformers' own switch: it makes the embeddings' output need a gradient, and with it every frozen
    layer above them.
    """
    for layer in layers:
        if not isinstance(layer, GradientCheckpointingLayer):
            raise ConfigError(
                f"gradient_checkpointing=True: layers of the base model ({type(layer).__name__}) cannot "
                "compute their activations again; leave the setting out, or lower tokens_per_batch"
            )
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
