"""Reports what runs on this machine, how accurately and how fast: ``python -m seqnets.doctor``."""
