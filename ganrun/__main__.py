import sys

from ganrun.cli.main import main

sys.exit(main())
