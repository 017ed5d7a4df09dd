"""Attacks on a sandbox, counted: what ``pinfold attack`` runs, and what it runs them against.

The claim of this project is that a program cannot get a call past its verdict. Here the claim is
measured. An *attack* is a C program (``attacks/`` in the source tree) that tries one way around,
over and over, inside a sandbox that denies it something, and counts how often it got that: its
*escapes*. Every sandbox applies the same rule (``rule.py``) to the same prepared directory
(``stage.py``), so that the counts can be put side by side.

A count of zero proves nothing by itself: the attack may be broken. So each attack names a
*control*, a supervisor that is wrong in exactly the way that the attack is about, and which must
lose (``supervisors/``). An attack whose control does not lose is reported as not testing.

``catalogue/`` is the list of attacks, as data. ``trial.py`` runs one program under one supervisor.
"""
