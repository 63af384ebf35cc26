"""``python -m vqcodec`` is the ``vqcodec`` command."""

import sys

from vqcodec.cli import main

sys.exit(main())
