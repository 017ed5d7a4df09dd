"""What pinfold knows about system calls, as data: numbers, argument kinds, what is refused and why.

The one table from which the filter, the decoders and the log are made (pure).
"""
