"""What runs here, how exactly and how fast: ``python -m seqnets.doctor``."""
