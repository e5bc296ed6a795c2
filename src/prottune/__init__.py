"""Fine-tune a protein language model on labelled sequences, judge it honestly, and serve it."""

__version__ = "0.1.0"
