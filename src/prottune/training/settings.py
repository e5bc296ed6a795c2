"""Settings and report of training. Imports nothing heavy: the pipeline is compiled from these defaults."""

from __future__ import annotations

from dataclasses import dataclass, field

from prottune.errors import ConfigError

PROTBERT_REVISION = "7a894481acdc12202f0a415dd567f6cfdb698908"
"""Commit of Rostlab/prot_bert on the Hugging Face Hub that is fetched unless another is named."""

MOST_SECONDS = 24 * 3600
"""A training in a cluster that takes longer is ended."""

ALL_LAYERS = -1
"""The value of `freeze_layers` that freezes the encoder whatever its number of layers is."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a base model becomes a classifier of locations."""

    base_model: str = "Rostlab/prot_bert"
    """Hub name, folder, s3:// prefix, or a from-scratch preset: tiny, small."""
    base_revision: str = PROTBERT_REVISION
    """40-hex commit of a Hub name; not used for folders, prefixes and presets."""
    head: str = "attention"
    """cls (stock BertForSequenceClassification), mean (over residues), attention (light attention)."""
    epochs: int = 10
    """Most passes over the training proteins; early stopping may end before."""
    patience: int = 3
    """Epochs without a better calibrated validation loss before training stops; 0 never stops early."""
    learning_rate: float = 3e-5
    """Peak rate of the encoder. From-scratch presets want about 1e-3."""
    head_learning_rate: float = 1e-3
    """Peak rate of the head."""
    warmup_share: float = 0.1
    """Share of all optimizer steps in which the rates rise from 0; then they decay linearly to 0."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay; not applied to biases and layer norms."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this global norm."""
    head_dropout: float = 0.1
    """Share of the head's inputs that is dropped while training."""
    class_weights: str = "none"
    """none, or rare locations weigh more in the loss: balanced (all count alike), sqrt (half the way)."""
    membrane_weight: float = 0.0
    """Above 0 the model also learns which proteins are bound to a membrane; its loss counts so many times."""
    tokens_per_batch: int = 8192
    """Most tokens of one optimizer step, over all processes; a longer protein forms its own step."""
    tokens_per_pass: int = 0
    """Most tokens that a process puts through the model at a time; a longer protein goes alone. 0: its whole
    share of a step. Lower it when memory runs out: gradients add up to the same."""
    freeze_layers: int = 0
    """Lower layers that stay as they are, and the embeddings with them; -1 freezes the whole encoder."""
    cache_features: bool = True
    """Run a wholly frozen encoder once and keep its outputs for all epochs, instead of in every epoch."""
    lora_rank: int = 0
    """Above 0 the encoder stays as it is and adapters of this rank (LoRA) learn beside its layers."""
    lora_alpha: int = 16
    """Adapters count lora_alpha / lora_rank times."""
    lora_targets: str = "query,value"
    """Matrices of a layer that get an adapter, by name; query,key,value,dense are all of BERT's and ESM's."""
    layer_decay: float = 1.0
    """Each layer's peak rate is that of the layer above times this; the embeddings have the lowest."""
    gradient_checkpointing: bool = False
    """Compute activations again on the way back instead of keeping them: less memory, a third more work."""
    compress_gradients: bool = False
    """Processes exchange gradients as bf16: half the bytes, 8 significant bits."""
    confident_accuracy: float = 0.9
    """Share of validation answers that must be right among those that the model calls confident."""
    precision: str = "auto"
    """auto (bf16 where processor or GPU has it), bf16, fp32."""
    num_processes: int = 1
    """Processes on one node: one a GPU, or one a few cores."""
    num_nodes: int = 1
    """Nodes; more than 1 needs a cluster with Kubeflow Trainer, and checkpoints in an object store."""
    node_gpus: int = 1
    """GPUs of each node where num_nodes is above 1, one for each process there; 0 trains on processors."""
    checkpoint_every: int = 200
    """Optimizer steps from one checkpoint to the next, where a place for checkpoints is named."""
    keep_checkpoints: int = 2
    """Newest checkpoints that are kept; older ones are removed once a newer one is whole."""
    rank_timeout_seconds: int = 1800
    """A process that keeps the others waiting for so long has hung, and the run ends; as long as the slowest
    download of a base model or checkpoint may take."""
    seed: int = 43
    """Decides weights, order and dropout."""

    def __post_init__(self) -> None:
        choices = {
            "head": ("cls", "mean", "attention"),
            "class_weights": ("none", "sqrt", "balanced"),
            "precision": ("auto", "bf16", "fp32"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name}={getattr(self, name)!r}: expected one of {', '.join(allowed)}")
        counts = ("epochs", "num_processes", "num_nodes", "checkpoint_every", "keep_checkpoints")
        for name in (*counts, "rank_timeout_seconds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: expected at least 1")
        for name in ("learning_rate", "head_learning_rate", "max_grad_norm"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name}={getattr(self, name)}: expected a number above 0")
        for name in ("weight_decay", "membrane_weight", "patience", "node_gpus"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name}={getattr(self, name)}: expected at least 0")
        if self.tokens_per_batch < 64:
            raise ConfigError(f"tokens_per_batch={self.tokens_per_batch}: expected at least 64")
        if self.tokens_per_pass != 0 and self.tokens_per_pass < 64:
            raise ConfigError(f"tokens_per_pass={self.tokens_per_pass}: expected 0 or at least 64")
        if self.num_nodes > 1 and self.node_gpus not in (0, self.num_processes):
            raise ConfigError(
                f"node_gpus={self.node_gpus}, num_processes={self.num_processes}: expected one GPU for each "
                "process of a node, or 0 GPUs to train on processors"
            )
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed={self.seed}: expected at least 0, below 2^63")
        self._check_shares()
        self._check_adaptation()

    def _check_shares(self) -> None:
        for name in ("warmup_share", "head_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: expected at least 0, below 1")
        for name in ("confident_accuracy", "layer_decay"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"{name}={getattr(self, name)}: expected above 0, at most 1")

    def _check_adaptation(self) -> None:
        if self.freeze_layers < ALL_LAYERS:
            raise ConfigError(
                f"freeze_layers={self.freeze_layers}: expected a number of layers, or -1 for all"
            )
        if self.lora_rank < 0:
            raise ConfigError(f"lora_rank={self.lora_rank}: expected at least 0")
        if self.lora_alpha < 1:
            raise ConfigError(f"lora_alpha={self.lora_alpha}: expected at least 1")
        if not all(self.lora_target_names):
            raise ConfigError(f"lora_targets={self.lora_targets!r}: expected names with commas between them")
        if self.freeze_layers == ALL_LAYERS:
            self._refuse_what_needs_a_trained_layer()

    def _refuse_what_needs_a_trained_layer(self) -> None:
        for name in ("lora_rank", "gradient_checkpointing", "layer_decay"):
            if (value := getattr(self, name)) != getattr(TrainConfig, name):
                raise ConfigError(
                    f"{name}={value}: freeze_layers={self.freeze_layers} leaves no layer that it could act "
                    f"on; freeze fewer layers or leave out {name}"
                )

    @property
    def lora_target_names(self) -> tuple[str, ...]:
        """`lora_targets`, name by name."""
        return tuple(name.strip() for name in self.lora_targets.split(","))

    def num_frozen(self, num_layers: int) -> int:
        """How many layers of an encoder with so many stay as they are.

        Raises: ConfigError if it has fewer than are to be frozen, or if a setting needs one that learns.
        """
        if self.freeze_layers > num_layers:
            raise ConfigError(
                f"freeze_layers={self.freeze_layers}: the base model has {num_layers} layers; "
                f"expected at most {num_layers}"
            )
        frozen = num_layers if self.freeze_layers == ALL_LAYERS else self.freeze_layers
        if frozen == num_layers:
            self._refuse_what_needs_a_trained_layer()
        return frozen


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """How training went, in plain numbers."""

    num_parameters: int
    num_steps: int
    epochs_run: int
    best_epoch: int
    validation_loss: float
    validation_accuracy: float
    temperature: float
    seconds: float
    tokens_per_second: float
    model_digest: str
    facts: dict[str, str] = field(default_factory=dict)
    """For people: precision used, base model's digest, number of processes, device."""
