"""A program to be measured: small transactions on a database in a file.

``database.py FILE COUNT`` makes COUNT transactions, each with a journal that is made and removed.
Prints what is in the table in the end.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys


def main() -> int:
    """Runs the transactions and returns an exit status."""
    path, count = sys.argv[1], int(sys.argv[2])
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA synchronous = OFF")
        database.execute("CREATE TABLE log (id INTEGER PRIMARY KEY, text TEXT)")
        for number in range(count):
            with database:
                database.execute("INSERT INTO log (text) VALUES (?)", (f"line {number}",))
        (rows,) = database.execute("SELECT count(*) FROM log").fetchone()
        (last,) = database.execute("SELECT max(text) FROM log").fetchone()
    sys.stdout.write(f"{rows} {last}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
