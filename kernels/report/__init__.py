"""What a compiled kernel costs, counted from its disassembly without a GPU, and a roofline model on top of the counts."""
