"""Numbers about models that settings of several stages need. Imports nothing heavy."""

MAX_GOLDEN_DIFFERENCE = 0.02
"""Largest difference between a golden probability, computed in fp32, and a correct model's answer; serving in
bf16 needs about 0.01."""
