import sys

from ganrun.cli import main

sys.exit(main())
