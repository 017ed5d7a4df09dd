"""The audit log: what each trapped call asked for, as pinned, and what became of it."""

from pinfold.audit.record import Entry, describe
from pinfold.audit.writer import AuditWriter

__all__ = ["AuditWriter", "Entry", "describe"]
