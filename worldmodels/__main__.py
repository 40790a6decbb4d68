"""The console command `worldmodels`: runs the project's scripts, from a checkout or a wheel.

A wheel holds them as worldmodels/commands/scripts, because a folder `scripts` beside everybody
else's packages would meet others of that name. Ours is put before them here; the processes that a
script starts search the same folders.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from generative.training.interrupts import end_quietly


def main() -> int:
    """Run the verb that the command line names; returns the exit status."""
    end_quietly()
    here = Path(__file__).parent
    shipped = here / "commands"
    sys.path.insert(0, str(shipped if shipped.is_dir() else here.parent))
    return importlib.import_module("scripts.__main__").main()


if __name__ == "__main__":
    sys.exit(main())
