"""Measures seqnets beside other libraries. A benchmark prints its method with its results and writes every sample."""
