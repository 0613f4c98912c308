"""Reads a table from a CSV or Parquet file, by pandas (`pip install 'ganrun[tables]'`)."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ganrun.checks import did_you_mean

Columns = dict[str, np.ndarray]  # float64 (n,), NaN where a value is missing, or objects: texts, and None
PARQUET = (".parquet", ".pq")
SEPARATORS = (",", ";", "\t", "|")


def read_table(
    file: str | Path,
    columns: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    categories: Sequence[str] = (),
    missing_values: Sequence[Any] = (),
    separator: str | None = None,
    key: str = "data.file",
    needed: Sequence[str] | None = None,
) -> Columns:
    """The columns of a file with a header, in its order.

    columns: those to read; null: all but `drop`. categories: columns whose values stay texts, so that 01 is not 1.
    missing_values: texts that mean that a value is missing, besides an empty one, NA, nan, null and others of pandas.
    separator: of a CSV file; None: the one of SEPARATORS that is most frequent in its header.
    key: of the setting that names the file, for messages. needed: the only columns that are converted, if
    the file has them; None: all.
    Raises ValueError if pandas is missing, and for a file that cannot be read, or has no such columns or no rows.
    """
    path = Path(file).expanduser()
    where = f"{key}={file}"
    frame = _parquet(path, where) if path.suffix.lower() in PARQUET else _csv(
        path, where, categories, missing_values, separator
    )  # fmt: skip
    names = [str(name) for name in frame.columns]
    frame.columns = names
    chosen = [n for n in _chosen(where, names, columns) if n not in _known(where, "drop", names, drop)]
    if not len(frame):
        raise ValueError(f"{where}: has a header, but no rows.")
    if needed is not None:
        chosen = [n for n in chosen if n in needed]
    elif not chosen:
        raise ValueError(f"{where}: no column is left; its columns are {_listed(names)}.")
    texts = {str(value) for value in missing_values}
    return {name: _values(where, name, frame[name], texts) for name in chosen}


def _chosen(where: str, names: Sequence[str], columns: Sequence[str] | None) -> list[str]:
    known = _known(where, "columns", names, names if columns is None else columns)
    return [name for name in names if name in known]


def _known(where: str, setting: str, names: Sequence[str], asked: Sequence[str]) -> set[str]:
    for name in asked:
        if name not in names:
            end = did_you_mean(name, names)
            raise ValueError(f"data.{setting}=[{name}]: {where} has no such column{end} They are {_listed(names)}.")
    return set(asked)


def _listed(names: Sequence[str], most: int = 20) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _check_file(path: Path, where: str) -> None:
    if not path.is_file():
        raise ValueError(f"{where}: {'is a folder, not a file' if path.is_dir() else 'no such file'}.")
    if not path.stat().st_size:
        raise ValueError(f"{where}: is empty.")


def _pandas(where: str) -> Any:
    if find_spec("pandas") is None:
        raise ValueError(f"{where}: needs pandas, which is not installed; `pip install 'ganrun[tables]'`.")
    import pandas

    return pandas


def _csv(
    path: Path, where: str, categories: Sequence[str], missing_values: Sequence[Any], separator: str | None
) -> Any:
    _check_file(path, where)
    pandas = _pandas(where)
    separator = separator_of(path) if separator is None else separator
    if len(separator) != 1:
        raise ValueError(f"data.separator={separator}: must be one character, as in ';'.")
    try:
        return pandas.read_csv(
            path, sep=separator, na_values=[str(v) for v in missing_values], skipinitialspace=True, low_memory=False,
            dtype=dict.fromkeys(categories, str), encoding="utf-8-sig",
        )  # fmt: skip
    except (ValueError, OSError, pandas.errors.ParserError, pandas.errors.EmptyDataError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ValueError(f"{where}: cannot be read as CSV ({reason}).") from error


def separator_of(path: Path) -> str:
    """The most frequent of SEPARATORS in the first line of a file; a comma if there is none."""
    with path.open(encoding="utf-8", errors="replace") as file:
        header = file.readline()
    return max(SEPARATORS, key=header.count)


def _parquet(path: Path, where: str) -> Any:
    _check_file(path, where)
    pandas = _pandas(where)
    if find_spec("pyarrow") is None:
        raise ValueError(f"{where}: needs pyarrow, which is not installed; `pip install 'ganrun[tables]'`.")
    try:
        return pandas.read_parquet(path, engine="pyarrow")
    except (ValueError, OSError) as error:  # errors of pyarrow are among them
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ValueError(f"{where}: cannot be read as Parquet ({reason}).") from error


def _values(where: str, name: str, series: Any, missing_values: set[str]) -> np.ndarray:
    from pandas.api import types

    if types.is_datetime64_any_dtype(series) or types.is_timedelta64_dtype(series):
        raise ValueError(
            f"{where}: column {name} has dates, which are not supported; leave it out: data.drop=[{name}]."
        )
    if types.is_numeric_dtype(series) and not types.is_bool_dtype(series) and not types.is_complex_dtype(series):
        found: np.ndarray = series.to_numpy(dtype=np.float64, na_value=np.nan)
        return found
    objects = series.astype(object)
    values: np.ndarray = objects.where(objects.notna(), None).to_numpy()
    if missing_values:  # of Parquet files, whose reader has no such setting
        values = np.array([None if str(v) in missing_values else v for v in values], dtype=object)
    return values


def rows_of(columns: Mapping[str, np.ndarray]) -> int:
    return len(next(iter(columns.values())))
