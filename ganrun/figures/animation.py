"""Images one after the other, as a GIF and, through ffmpeg, as an MP4."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

LAST = 2.0  # seconds that the last image stays


def save_gif(images: Sequence[np.ndarray], path: Path, fps: int) -> None:
    """Images (H, W, 3) of uint8, all of one size; it plays again and again."""
    pictures = [Image.fromarray(image).quantize(256, dither=Image.Dither.NONE) for image in images]
    shown = [round(1000 / fps)] * (len(pictures) - 1) + [round(1000 * LAST)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=shown, loop=0)


def ffmpeg() -> str | None:
    """Where it is, if it is."""
    return shutil.which("ffmpeg")


def save_mp4(images: Sequence[np.ndarray], path: Path, fps: int, program: str) -> None:
    """Raises OSError, with ffmpeg's last words, where it fails."""
    height, width, _ = images[0].shape
    still = [images[-1].tobytes()] * round(fps * LAST)
    line = [
        program, "-y", "-loglevel", "error",
        "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "-",
        "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2:color=white",  # the codec wants even sides
        "-pix_fmt", "yuv420p", "-movflags", "+faststart", str(path),
    ]  # fmt: skip
    done = subprocess.run(line, input=b"".join([*(i.tobytes() for i in images), *still]), capture_output=True)
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        path.unlink(missing_ok=True)
        raise OSError(f"{path.name}: ffmpeg failed ({words[-1]}).")
