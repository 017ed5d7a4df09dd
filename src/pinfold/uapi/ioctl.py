"""Composition of ioctl request numbers (``asm-generic/ioctl.h``)."""

from typing import Final

_NONE: Final = 0
_WRITE: Final = 1
_READ: Final = 2


def _ioc(direction: int, magic: str, number: int, size: int) -> int:
    return (direction << 30) | (size << 16) | (ord(magic) << 8) | number


def iow(magic: str, number: int, size: int) -> int:
    """Returns the request whose argument is a struct of ``size`` bytes read by the kernel."""
    return _ioc(_WRITE, magic, number, size)


def iowr(magic: str, number: int, size: int) -> int:
    """Returns the request whose argument is a struct of ``size`` bytes read and written."""
    return _ioc(_READ | _WRITE, magic, number, size)
