"""Tasks under our ptrace: their stops, registers, memory, names, and calls injected into them."""
