"""Checks of settings against type annotations, and their messages. Imports nothing heavy, for the command line."""

import difflib
import inspect
import types
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a string", type(None): "null"}


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name that `word` most likely means, or None.

    >>> nearest("trian.steps", ["train.steps", "seed"])
    'train.steps'
    >>> nearest("optimizer.betas", ["optimizer.lr", "optimizer.foreach"])
    """
    known = [name for name in known if not word.startswith(f"{name}.")]  # without the sections that it is in
    section, _, leaf = word.rpartition(".")

    def is_similar(name: str) -> bool:
        """In the same section only the last name counts."""
        before, _, last = name.rpartition(".")
        return before != section or difflib.SequenceMatcher(None, leaf, last).ratio() >= 0.6

    found = [name for name in difflib.get_close_matches(word, known, n=9, cutoff=0.6) if is_similar(name)]
    if not found:  # `stepz` may mean `train.steps`
        leaves = {name.rpartition(".")[2]: name for name in known}
        found = [leaves[name] for name in difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.7)]
    return found[0] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message on an unknown word: `; did you mean NAME?`, or a full stop if no known name is similar."""
    name = nearest(word, known)
    return f"; did you mean {name}?" if name else "."


def fits(value: Any, annotation: Any) -> bool:
    """Whether `value`, as read from YAML, fits `annotation`. Every value fits an unknown annotation.

    >>> fits(3, float), fits("abc", int), fits(True, int), fits("x", Literal["x", "y"])
    (True, False, False, True)
    """
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation in NAMES:
        return isinstance(value, annotation)
    origin = get_origin(annotation)
    if origin is Literal:
        return value in get_args(annotation)
    if origin in (Union, types.UnionType):
        options: Sequence[Any] = get_args(annotation)
        if not isinstance(value, dict):  # ignore types that YAML does not have, as in `float | Tensor`
            options = [option for option in options if option in NAMES or get_origin(option)] or options
        return any(fits(value, option) for option in options)
    if origin in (list, tuple, Sequence):
        if not isinstance(value, list | tuple):
            return False
        items = [option for option in get_args(annotation) if option is not Ellipsis]
        if origin is tuple and Ellipsis not in get_args(annotation) and len(value) != len(items):
            return False
        return all(any(fits(v, i) for i in items) for v in value)
    return True


def describe(annotation: Any) -> str:
    """`annotation` in words: `a whole number`, `one of alternating, simultaneous`."""
    origin, options = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return "one of " + ", ".join(map(str, options))
    if origin in (Union, types.UnionType):
        return " or ".join(describe(option) for option in options if option in NAMES or get_origin(option))
    if origin in (list, tuple, Sequence):
        number = f"{len(options)} values" if origin is tuple and Ellipsis not in options else "a list"
        return f"{number}, each {describe(options[0])}"
    return NAMES.get(annotation, str(annotation))


def must_be(value: Any, annotation: Any) -> str:
    """The end of a message on a value that does not fit.

    >>> must_be(1e3, int)
    'must be a whole number; write 1000.'
    """
    is_whole = isinstance(value, float) and value.is_integer() and fits(int(value), annotation)
    return f"must be {describe(annotation)}{f'; write {int(value)}' if is_whole else ''}."


def as_typed(value: Any) -> str:
    """A value as typed on the command line: null, true, 3."""
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


FIXED = {  # why a setting cannot change when a run is resumed, and what to do instead, by its first word
    "arch": ("its weights belong to this architecture", "start a new run, or grow it with init_from=RUN_DIR"),
    "data": ("it continues on its own data", "start a new run on other data with init_from=RUN_DIR"),
    "features": ("its records are of these features", "use others with `ganrun evaluate run_dir=DIR features=NAME`"),
    "init": ("it has no effect after the first step", "start a new run"),
    "init_from": ("it has no effect after the first step", "start a new run"),
    "metric": ("its records are of these metrics", "compute others with `ganrun evaluate run_dir=RUN_DIR metric=NAME`"),
}


def cannot_change(key: str, value: str) -> str:
    """The message on a setting of a run that is changed when it is resumed."""
    reason, remedy = FIXED.get(
        key.partition(".")[0],
        ("its steps so far were trained with another value", "start a new run from its weights with init_from=RUN_DIR"),
    )
    return f"{key}={value}: cannot change when a run is resumed, because {reason}; {remedy}."


def check_arguments(
    key: str, target: Callable[..., Any], given: Mapping[str, Any], filled: Collection[str] = ()
) -> None:
    """Raise ValueError if `given` does not fit the signature of `target`.

    key: before the names in the message. filled: parameters that are no settings, since the caller fills them in.
    """
    parameters = inspect.signature(target).parameters
    free = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    settings = [p.name for p in parameters.values() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    annotations = _annotations(target)
    for name, value in given.items():
        if name not in parameters and not free:
            known = [f"{key}.{setting}".lstrip(".") for setting in settings if setting not in filled]
            full = f"{key}.{name}".lstrip(".")
            raise ValueError(f"{full}={value}: no such setting{did_you_mean(full, known)}")
        if not fits(value, annotations.get(name, Any)):
            raise ValueError(f"{key}.{name}={as_typed(value)}: {must_be(value, annotations[name])}".lstrip("."))


def _annotations(target: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError):  # names that are imported for type checking only
        return {}
