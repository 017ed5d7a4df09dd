"""The codecs see tasks through ``Memory`` and the kernel not at all."""

from __future__ import annotations

import ast
import inspect
import pkgutil
from importlib import import_module

from pinfold import codec

ALLOWED = {
    "__future__",
    "collections.abc",
    "errno",
    "ipaddress",
    "re",
    "struct",
    "typing",
}
OURS = ("pinfold.codec", "pinfold.uapi", "pinfold.errors", "pinfold.values")


def test_imports() -> None:
    modules = [
        import_module(f"pinfold.codec.{found.name}")
        for found in pkgutil.iter_modules(codec.__path__)
    ]
    assert len(modules) >= 8
    for module in modules:
        imported = {
            name.name if isinstance(node, ast.Import) else str(node.module)
            for node in ast.walk(ast.parse(inspect.getsource(module)))
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for name in node.names
        }
        strangers = {name for name in imported if not name.startswith(OURS)} - ALLOWED
        assert not strangers, module.__name__
