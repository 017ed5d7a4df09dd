"""Rules and verdicts: values in, values out; nothing here asks the kernel or keeps a clock."""
