"""Writes a network in one format or several, checks the files, and writes the model card beside them."""

import logging
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ganrun.checks import did_you_mean
from ganrun.export.card import MARK, Written, card
from ganrun.export.comparison import compare
from ganrun.export.formats import FORMATS, Exported
from ganrun.export.libraries import missing
from ganrun.export.source import FormatName, Source
from ganrun.records.checkpoint import errors_name, sync

log = logging.getLogger("ganrun")

CARD = "README.md"


def export(source: Source, formats: Sequence[FormatName], out: Path | None = None, uint8: bool = False) -> Path:
    """Write the network and its model card. Returns their folder.

    out: the folder; None: one in the run directory. uint8: images are bytes (B, H, W, C), as G's output or D's input.
    The files are complete, and compared with the network, before any of them replaces an earlier one. Raises ValueError
    for settings that cannot work, a missing library, and a file whose output differs, and OSError, as for a full disk.
    """
    check(source, formats, uint8)
    folder = out or source.run_dir.path / "export" / "_".join([source.player, *formats])
    names = {name: f"{source.player}{FORMATS[name].suffix}" for name in formats}
    check_folder(folder, [CARD, *names.values()])
    exported = Exported(source, uint8)
    with unfinished(folder) as partial:
        found = []
        for name, file in names.items():
            with errors_name(folder / file):
                FORMATS[name].write(exported, partial / file)
            size = (partial / file).stat().st_size
            found.append(Written(name, file, size, compare(exported, name, partial / file)))
        with errors_name(folder / CARD):
            (partial / CARD).write_text(card(source, exported.function, found), encoding="utf-8")
    for each in found:
        log.info("file       %s (%s)", folder / each.file, each.megabytes)
        log.info("compared   %s", each.comparison.sentence)
    log.info("card       %s", folder / CARD)
    return folder


def check(source: Source, formats: Sequence[FormatName], uint8: bool) -> None:
    if not formats:
        raise ValueError(f"format=[]: choose at least one of {', '.join(FORMATS)}.")
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"format={name}: must be one of {', '.join(FORMATS)}{did_you_mean(name, FORMATS)}")
        if library := missing(FORMATS[name].writes):
            raise ValueError(f"format={name}: needs {library}, which is not installed; `pip install 'ganrun[export]'`.")
    if uint8 and not source.spec.is_image:
        raise ValueError(f"uint8=true: these data have shape {source.spec.shape} and are not images; use uint8=false.")
    if uint8 and "safetensors" in formats:
        raise ValueError("uint8=true: format=safetensors stores weights only; use format=onnx or torch_export.")


def check_folder(folder: Path, names: Sequence[str]) -> None:
    """Raise ValueError if the folder has a README that is no model card, or one of an export with other files."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"out={folder}: is a file; choose a folder.")
    readme = folder / CARD
    if not readme.exists():
        return
    mark = re.search(MARK.format("(.*)"), readme.read_text(encoding="utf-8", errors="replace"))
    if not mark:
        raise ValueError(f"out={folder}: has a {CARD} that is not of an export; choose another folder.")
    if others := [name for name in mark[1].split(", ") if name not in names and (folder / name).exists()]:
        raise ValueError(
            f"out={folder}: has {others[0]} of an earlier export, which its {CARD} describes; choose another folder, "
            "or remove it."
        )


@contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
    """A new folder in `folder`, whose files are moved into it at the end of the body, the model card last."""
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("*.unfinished"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    partial = folder / f"{secrets.token_hex(8)}.unfinished"
    try:
        with errors_name(folder):
            partial.mkdir()
        yield partial
        with errors_name(folder):
            place(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if is_new:
            with suppress(OSError):  # it has files
                folder.rmdir()


def place(partial: Path, folder: Path) -> None:
    """Move the files, once they are on the disk. In between there is no card, since it would describe other files."""
    files = sorted(partial.iterdir(), key=lambda path: path.name == CARD)
    for path in files:
        sync(path)
    (folder / CARD).unlink(missing_ok=True)
    for path in files:
        path.replace(folder / path.name)
    sync(folder)
