"""Runs generated cells on the CPU, as compiled C++ with a single schedule."""
