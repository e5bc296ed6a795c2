"""Encoder, heads and padding-free attention: token ids -> calibrated logits."""
