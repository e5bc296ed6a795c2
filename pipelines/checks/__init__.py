"""What `python -m pipelines doctor` looks at: small functions, each of which tells what it found."""
