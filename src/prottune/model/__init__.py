"""Encoder, heads and padding-free attention: token ids -> calibrated logits."""

import os

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read once, when huggingface_hub is imported
