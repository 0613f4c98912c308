"""Creates the objects that nodes of the config describe by `_target_` and arguments."""

import inspect
import re
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from ganrun import trusted
from ganrun.checks import check_arguments, did_you_mean
from ganrun.config import Config
from ganrun.protocols import complete
from ganrun.records.legacy import TARGETS

HYDRA_KEYS = ("_target_", "_partial_", "_convert_", "_recursive_", "_args_")
OPTIONAL = ("metric.", "penalty.", "tracker.")  # sections of which a run may have any number
T = TypeVar("T")


def make(key: str, node: Config, **facts: Any) -> Any:
    """The object that `node` describes. It also gets those of the `facts` that its signature names.

    Raises ValueError, with `key` in the message, if the target cannot be imported or its arguments do not fit.
    """
    target = target_of(key, node)
    given = {name: value for name, value in node.items() if name not in HYDRA_KEYS}
    check_arguments(key, target, given, facts)
    parameters = inspect.signature(target).parameters
    facts = {name: value for name, value in facts.items() if name in parameters and name not in given}
    missing = [
        p.name
        for p in parameters.values()
        if p.default is p.empty
        and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        and p.name not in given
        and p.name not in facts
    ]
    if missing:
        raise ValueError(f"{key}.{missing[0]}: {node['_target_']} needs it; add +{key}.{missing[0]}=VALUE.")
    try:
        return create(key, {**node, "_partial_": True})(**facts)
    except (ValueError, TypeError, RuntimeError, IndexError) as error:
        reason = str(error).strip() or type(error).__name__
        raise ValueError(with_key(key, given, reason.splitlines()[0])) from error


def create(key: str, node: Any) -> Any:
    """`node` with the objects of all nodes in it that have a `_target_`, as Hydra's `instantiate` makes them.

    It resolves no interpolations (`${oc.env:NAME}`): ganrun composes a config before it is used, and a stored one is
    data. Raises ValueError for a target that is not found or not trusted, and the errors of the targets.
    """
    if isinstance(node, list):
        return [create(f"{key}.{i}", item) for i, item in enumerate(node)]
    if not isinstance(node, dict):
        return node
    inner = {name: value for name, value in node.items() if name not in HYDRA_KEYS or name == "_args_"}
    if node.get("_recursive_", True):
        inner = {name: create(f"{key}.{name}", value) for name, value in inner.items()}
    if "_target_" not in node:
        return inner
    if not isinstance(node["_target_"], str):
        raise ValueError(f"{key}._target_={node['_target_']}: must be the name of a class or function.")
    made = partial(find_target(key, node["_target_"]), *inner.pop("_args_", ()), **inner)
    return made if node.get("_partial_") else made()


def make_component(key: str, node: Config, interface: type[T], **facts: Any) -> T:
    """The object that `node` describes, with the defaults of `interface`. Raises ValueError."""
    return completed(key, make(key, node, **facts), interface)


def make_several(key: str, config: Config, interface: type[T], **facts: Any) -> dict[str, T]:
    """The components of a section that can have several, by name. facts: as for `make`. Raises ValueError."""
    nodes: Config = config.get(key) or {}
    if isinstance(nodes.get("_target_"), str):
        raise ValueError(
            f"{key}._target_={nodes['_target_']}: a run can have several of {key}, each below a name of its own; "
            f"write conf/{key}/NAME.yaml as `NAME: {{_target_: {nodes['_target_']}}}`."
        )
    for name in nodes:  # they are parts of file names
        if not isinstance(name, str) or re.search(r"[/\\\0]", name):
            raise ValueError(f"{key}.{name}: must be a name without slashes.")
    return {name: make_component(f"{key}.{name}", node, interface, **facts) for name, node in nodes.items()}


def completed(key: str, component: object, interface: type[T]) -> T:
    """The object with the defaults of `interface` for all that its class lacks. Raises ValueError."""
    try:
        return complete(component, interface)
    except TypeError as error:
        raise ValueError(
            f"{key}: the defaults of its interface cannot be added to a {type(component).__name__}; "
            f"use a plain class, or derive from ganrun.protocols.{interface.__name__}."
        ) from error


def needs(key: str, node: Config, fact: str) -> bool:
    """Whether the signature of the node's target has a parameter `fact`."""
    return fact in inspect.signature(target_of(key, node)).parameters


def target_of(key: str, node: Config) -> Callable[..., Any]:
    """What the node describes. Raises ValueError if it has no target, or one that cannot be imported."""
    if not isinstance(node, dict) or not isinstance(node.get("_target_"), str):
        remedy = f" Choose an option of its group, or remove it by '~{key}'." if key.startswith(OPTIONAL) else ""
        raise ValueError(f"{key}: has no _target_, the class or function to use.{remedy}")
    return find_target(key, node["_target_"])


def with_key(key: str, given: Config, message: str) -> str:
    """The error message of a component, prefixed with the key of the setting that it is about.

    >>> with_key("schedule", {"every": 0}, "every=0: must be at least 1.")
    'schedule.every=0: must be at least 1.'
    """
    if message.startswith(f"{key.partition('.')[0]}.") or message.startswith(f"{key}:"):
        return message
    return f"{key}.{message}" if message.partition("=")[0] in given else f"{key}: {message}"


def find_target(key: str, target: str) -> Callable[..., Any]:
    """The class or function that `target` names. Raises ValueError if it is not found, or not trusted."""
    path = TARGETS.get(target, target)
    try:
        found = trusted.find(path)
    except trusted.NotTrusted as error:
        raise ValueError(f"{key}._target_={target}: {error}.") from None
    except Exception as error:  # of the user's module, of any type
        module, _, name = path.rpartition(".")
        if module in sys.modules:
            known = vars(sys.modules[module])
            raise ValueError(f"{key}._target_={target}: {module} has no {name}{did_you_mean(name, known)}") from error
        reason = [*str(error).strip().splitlines(), type(error).__name__][0]
        raise ValueError(
            f"{key}._target_={target}: cannot be imported ({reason}). "
            "Modules are searched for among the installed ones and in the folder where ganrun is started."
        ) from error
    if not callable(found):
        raise ValueError(f"{key}._target_={target}: is not a class or a function.")
    return found
