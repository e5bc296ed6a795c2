"""How the steps join, and the operator's program (`python -m pipelines --help`)."""
