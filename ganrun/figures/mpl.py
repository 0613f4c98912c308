"""The parts of matplotlib that figures use. Other modules take them from here.

At its import, matplotlib reads a file matplotlibrc in the working directory, which may come from someone else. Here it
does not. The one in the user's own configuration folder is read.
"""

import contextlib
import os

with contextlib.chdir(os.sep) if os.path.lexists("matplotlibrc") else contextlib.nullcontext():
    import matplotlib

from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.colors import BoundaryNorm, LinearSegmentedColormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

__all__ = [
    "Axes",
    "BoundaryNorm",
    "EngFormatter",
    "Figure",
    "Line2D",
    "LinearSegmentedColormap",
    "ListedColormap",
    "LogLocator",
    "MaxNLocator",
    "NullFormatter",
    "Patch",
    "StrMethodFormatter",
    "XAxis",
    "YAxis",
    "matplotlib",
]
