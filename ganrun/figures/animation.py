"""Animations from a list of images: a GIF and, with ffmpeg, an MP4."""

import io
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ganrun.files import MARK
from ganrun.records.checkpoint import write_atomically

LAST = 2.0  # seconds for the last image


def save_gif(images: Sequence[np.ndarray], path: Path, fps: int) -> None:
    """Save images (H, W, 3) of uint8, all of one size, as a looping GIF."""
    pictures = [Image.fromarray(image).quantize(256, dither=Image.Dither.NONE) for image in images]
    durations = [round(1000 / fps)] * (len(pictures) - 1) + [round(1000 * LAST)]
    buffer = io.BytesIO()
    rest = {"append_images": pictures[1:], "duration": durations, "loop": 0, "comment": MARK}
    pictures[0].save(buffer, "gif", save_all=True, **rest)
    write_atomically(path, lambda unfinished: unfinished.write_bytes(buffer.getbuffer()))


def ffmpeg() -> str | None:
    """The path of ffmpeg, or None if it is not installed."""
    return shutil.which("ffmpeg")


def save_mp4(images: Sequence[np.ndarray], path: Path, fps: int, program: str) -> None:
    """Raises OSError with the last line of ffmpeg's output if ffmpeg fails."""
    height, width, _ = images[0].shape
    still = [images[-1].tobytes()] * round(fps * LAST)
    line = [
        program, "-y", "-loglevel", "error",
        "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "-",
        "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2:color=white",  # the codec needs even sides
        "-pix_fmt", "yuv420p", "-movflags", "+faststart", "-f", "mp4",
    ]  # fmt: skip
    frames = b"".join([*(i.tobytes() for i in images), *still])

    def write(unfinished: Path) -> None:
        done = subprocess.run([*line, str(unfinished)], input=frames, capture_output=True)
        if done.returncode:
            output = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
            raise OSError(f"{path.name}: ffmpeg failed ({output[-1]}).")

    write_atomically(path, write)
