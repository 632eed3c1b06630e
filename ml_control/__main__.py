"""``python -m ml_control`` is ``ml-control``."""

from ml_control.cli import main

main()
