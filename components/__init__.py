"""What a step of the pipeline is: typed inputs and outputs, an image, and one call into prottune.

A step's body is shipped to its container as text. It may use nothing of its file, has no default of
its own, and holds no logic: what it calls is tested without KFP.
"""

from prottune import __version__

LIGHT_IMAGE = f"prottune-light:{__version__}"
"""Ingest, tokenize, compare, register, deploy, promote: no torch inside."""

TORCH_IMAGE = f"prottune-torch:{__version__}"
"""Train and evaluate."""
