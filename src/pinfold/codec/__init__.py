"""Pointer arguments of trapped calls: copied deep into a slot, and read and written there (pure).

Each decoder builds an *image* in the slot: the bytes that an argument points to, and the bytes that
those point to, with every inner pointer aimed at its copy. What rules judge and the log shows is
read from the image, and the kernel is pointed at the image.

The kernel's own answer to a bad argument is kept wherever it can give it. A pointer that the task
could not have used becomes :data:`~pinfold.codec.base.UNREADABLE` in the image, and a length that
the kernel refuses stays as it is; so the call fails as it would have failed, with the same errno,
after the same other checks.
"""
