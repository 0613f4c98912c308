"""Names made of settings."""

import hashlib
import re
from typing import Any


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """
    >>> flat({"train": {"steps": 3}})
    {'train.steps': 3}
    """
    if not isinstance(config, dict) or not config:
        return {prefix: config}
    nodes = {f"{prefix}.{key}" if prefix else str(key): node for key, node in config.items()}
    return {key: value for name, node in nodes.items() for key, value in flat(node, name).items()}


def slug(text: str, length: int = 100) -> str:
    """A file name made of `text`; where that is too long, its end is replaced by a digest.

    >>> slug("loss=wgan,data.root=../faces")
    'loss=wgan,data.root=.._faces'
    """
    name = re.sub(r"[^\w.=,+-]+", "_", text)
    return name if len(name) <= length else name[: length - 9] + "-" + hashlib.sha256(text.encode()).hexdigest()[:8]
