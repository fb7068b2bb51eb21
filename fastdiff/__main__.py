"""`python -m fastdiff`: the command line, also for launchers such as torchrun and accelerate."""

from __future__ import annotations

import sys

from fastdiff.cli import main

sys.exit(main())
