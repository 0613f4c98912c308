import os
import sys

if not sys.flags.safe_path and sys.path[0] == os.getcwd():
    del sys.path[0]  # `python -m` adds the working directory, where libraries would find ./dill.py

from ganrun.cli.main import main

sys.exit(main())
