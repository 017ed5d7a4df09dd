"""``python -m pinfold``."""

from pinfold.cli import main

main()
