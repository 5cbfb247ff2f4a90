"""Generated cells on the CPU: compiled C++ and the one schedule that runs it."""
