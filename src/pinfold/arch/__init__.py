"""What differs between processors: registers, the call instruction, audit numbers. Data only."""
