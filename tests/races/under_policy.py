"""Runs an attack program under the rule of the races, written as a policy.

    python tests/races/under_policy.py POLICY PROGRAM DIRECTORY [WORD]...

The policy is written into the program's directory, and names what is in there.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

_ODD: Final = str(list(range(1, 65536, 2)))

POLICIES: Final = {
    "argv-allowed": """
[defaults]
exec = "deny"
[[rule]]
on = "exec"
exact = "@DIRECTORY@/programs/race_exec"
action = "allow"
[[rule]]
on = "exec"
exact = "@DIRECTORY@/programs/race_child"
argv = [["*", "--mode=A"], ["*"]]
action = "allow"
""",
    "argv-denied": """
[[rule]]
on = "exec"
argv = ["*", "--mode=D", "..."]
action = "deny"
""",
    "argv-redirected": """
[[rule]]
on = "exec"
argv = ["*", "--mode=D", "..."]
action = "redirect"
to = { argv = ["raced", "--mode=A"] }
""",
    "env-denied": """
[[rule]]
on = "exec"
env = { LD_PRELOAD = true }
action = "deny"
""",
    "env-allowed": """
[defaults]
exec = "deny"
[[rule]]
on = "exec"
exact = "@DIRECTORY@/programs/race_exec"
action = "allow"
[[rule]]
on = "exec"
exact = "@DIRECTORY@/programs/race_child"
env = { LD_PRELOAD = false }
action = "allow"
""",
    "env-redirected": """
[[rule]]
on = "exec"
env = { LD_PRELOAD = true }
action = "redirect"
to = { unset_env = ["LD_PRELOAD"] }
""",
    "sockets-allowed": """
[defaults]
connect = "deny"
send = "deny"
bind = "deny"
[[rule]]
on = ["connect", "send"]
unix = ["**/peer-A", "**/peer-DA"]
action = "allow"
[[rule]]
on = "bind"
unix = ["**/bound-A", "**/peer-*"]
action = "allow"
""",
    "sockets-denied": """
[[rule]]
unix = "**/peer-D"
on = ["connect", "send"]
action = "deny"
""",
    "sockets-redirected": """
[[rule]]
unix = "**/peer-D"
on = ["connect", "send"]
action = "redirect"
to = { path = "@DIRECTORY@/scratch/peer-A" }
""",
    "ports-denied": """
[[rule]]
on = "connect"
family = "inet"
port = @ODD@
action = "deny"
""",
    "files-denied": """
[[rule]]
path = ["**/old-D", "**/new-D"]
on = "rename"
action = "deny"
""",
}
"""By name. What a redirect leads to is what the rule allows."""


def main() -> None:
    """Becomes ``pinfold run``."""
    name, program, directory, *words = sys.argv[1:]
    text = POLICIES[name].replace("@DIRECTORY@", directory).replace("@ODD@", _ODD)
    file = Path(directory) / "policy.toml"
    file.write_text("version = 1\n" + text)
    command = ("-m", "pinfold", "run", "--policy", str(file), "--", program, directory, *words)
    os.execv(sys.executable, [sys.executable, *command])


if __name__ == "__main__":
    main()
