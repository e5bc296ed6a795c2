"""Protein files in many formats -> checked records, clustered and split without leakage."""
