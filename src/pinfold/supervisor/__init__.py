"""The supervisor: who exists in a sandbox, what they ask for, what is decided, what is done."""
