"""A model's address -> an endpoint that passed its contract test."""
