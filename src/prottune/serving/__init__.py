"""A model folder -> a KServe endpoint."""
