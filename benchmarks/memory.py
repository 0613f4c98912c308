"""The peak memory of training on images, and the start of a run on a large folder. Writes benchmarks/memory.json.

Trains DCGAN for a few steps on CIFAR-10 (its files, with random pixels) and on a folder of 20,000 JPEG files of 256x256
pixels, decoded to 64x64. The images are drawn by this script. The first run on the folder decodes it, on a terminal, so
that the progress bar can be seen; the next ones read the cache. Takes about five minutes on an idle machine. CPU time
hardly depends on other programs, the time that passes does.
"""

import argparse
import json
import os
import pickle
import pty
import re
import statistics
import subprocess
import sys
import tempfile
import termios
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from machine import describe
from PIL import Image

OUT = Path(__file__).with_suffix(".json")
SIDE, STARTS = 256, 3


def write_photos(root: Path, num: int) -> None:
    """Smooth random colors with noise, as JPEG files of about the size of a photo's."""

    def write(k: int) -> None:
        rng = np.random.default_rng(k)
        smooth = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize(
            (SIDE, SIDE), Image.Resampling.BICUBIC
        )
        noisy = np.asarray(smooth, np.int16) + rng.integers(-12, 13, (SIDE, SIDE, 1), np.int16)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(root / f"{k:06d}.jpg", quality=85)

    root.mkdir()
    with ThreadPoolExecutor() as pool:
        list(pool.map(write, range(num)))


def write_cifar10(root: Path) -> None:
    """The six files of CIFAR-10, with random pixels."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]:
        batch = {"data": rng.integers(0, 256, (10000, 3072), np.uint8), "labels": [k % 10 for k in range(10000)]}
        (folder / name).write_bytes(pickle.dumps(batch))


# torch itself takes .12 GiB more while the interpreter exits (`python -c "import torch"`: .50, then .62 GiB).
PROGRAM = """
import atexit, pathlib, resource, sys
from ganrun.cli.main import main
peak, *arguments = sys.argv[1:]
atexit.register(lambda: pathlib.Path(peak).write_text(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)))
sys.exit(main(arguments))
"""


class Ended:
    """A `ganrun` process that has ended: its seconds, CPU seconds, and output to its terminal.

    start: seconds until training starts. peak_gib: its peak resident memory before the interpreter exits.
    exit_gib: the same, with the exit.
    """

    def __init__(self, *line: str) -> None:
        program, terminal = pty.openpty()
        termios.tcsetwinsize(terminal, (24, 80))  # without columns, there is no progress bar
        with tempfile.NamedTemporaryFile("r") as peak:
            self._run([sys.executable, "-c", PROGRAM, peak.name, *line], program, terminal)
            self.peak_gib = int(peak.read()) / 2**20

    def _run(self, command: list[str], program: int, terminal: int) -> None:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal, text=True)
        os.close(terminal)
        self.text = ""
        reader = threading.Thread(target=self._read, args=(program,))
        reader.start()
        assert process.stdout is not None
        for printed in process.stdout:
            if printed.startswith("training "):  # the first step follows
                self.start = time.perf_counter() - start
        _, status, usage = os.wait4(process.pid, 0)
        self.seconds = time.perf_counter() - start
        reader.join()
        if status:
            sys.exit(f"{' '.join(command[4:])}\n{self.text}")
        self.cpu_seconds = usage.ru_utime + usage.ru_stime
        self.exit_gib = usage.ru_maxrss / 2**20

    def _read(self, program: int) -> None:
        try:
            while data := os.read(program, 65536):
                self.text += data.decode(errors="replace")
        except OSError:  # the terminal is closed
            pass


def measure(num: int, steps: int, kept: Path | None = None) -> dict[str, float]:
    """kept: a folder of the photos that an earlier call wrote there, or will write there."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        folder = kept or root / "photos"
        write_cifar10(root / "cifar")
        thread = "train.threads=1"  # so that other programs do not make it much slower
        short = ["train.log_every=1", "train.sample_every=10", f"train.steps={steps}", thread]
        cifar = Ended("data=cifar10", f"data.root={root}/cifar", "data.verify=false", *short, f"run_dir={root}/a")
        print(f"CIFAR-10: {cifar.peak_gib:.2f} GiB", flush=True)
        if not folder.exists():
            write_photos(folder, num)
        print(f"{num:,} photos written", flush=True)
        photos = ["data=folder", f"data.root={folder}", f"data.cache={root}/cache", "data.size=64"]
        first = Ended(*photos, *short, f"run_dir={root}/b")
        bars = [int(percent) for percent in re.findall(r"decoding:\s+(\d+)%", first.text)]
        second = Ended(*photos, *short, f"run_dir={root}/c")
        plain = Ended(*photos, *short, "train.diagnose=false", f"run_dir={root}/d")
        one = ["train.steps=1", "train.log_every=1", "train.sample_every=0", thread]
        starts = [Ended(*photos, *one, "train.diagnose=false", f"run_dir={root}/s{k}") for k in range(STARTS)]
        return {
            "CIFAR-10, DCGAN: peak memory, GiB": round(cifar.peak_gib, 2),
            f"folder of {num} images: peak memory of the run that decodes it, GiB": round(first.peak_gib, 2),
            f"folder of {num} images: peak memory of the next run, GiB": round(second.peak_gib, 2),
            "the same, with the exit of the interpreter, GiB": round(second.exit_gib, 2),
            "the next run without the diagnosis at its end, GiB": round(plain.peak_gib, 2),
            f"folder of {num} images: first run of {steps} steps, s": round(first.seconds, 1),
            "positions of the progress bar of decoding": len(set(bars)),
            f"folder of {num} images: from the command to the first step, from the cache, s": round(
                statistics.median(end.start for end in starts), 2
            ),
            "the whole process of one step, s": round(statistics.median(end.seconds for end in starts), 2),
            "the same, CPU seconds": round(statistics.median(end.cpu_seconds for end in starts), 2),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--num", type=int, default=20000, help="images in the folder")
    parser.add_argument("--steps", type=int, default=20, help="steps of each run")
    parser.add_argument("--photos", type=Path, help="folder to keep the images in, for the next call")
    options = parser.parse_args()
    figures = measure(options.num, options.steps, options.photos)
    print(json.dumps(figures, indent=2))
    machine = {**describe(), "load of other programs": round(os.getloadavg()[2], 1)}
    OUT.write_text(json.dumps({"machine": machine, "figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
