"""What a compiled kernel costs, counted from its disassembly without a GPU, and a model of the floors that follow."""
