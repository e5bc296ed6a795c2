"""Tokens -> a fine-tuned model folder, in one process or many."""
