"""A network from a file that `ganrun export format=safetensors` has written."""

from pathlib import Path

import torch
from torch import nn

from ganrun.data.dataset import DataSpec
from ganrun.export import weights
from ganrun.protocols import Latent
from ganrun.training.build import make_condition, make_discriminator, make_generator
from ganrun.training.runtime import choose_device
from ganrun.trusted import add_run


def load_network(path: str | Path, device: str = "cpu") -> nn.Module:
    """The G(z, y=None) or D(x, y=None) in a .safetensors file, in eval mode.

    Its class must be one of ganrun, or in a module of the working directory (docs/security.md). Raises ValueError if
    the file is missing, damaged, or not of `ganrun export`.
    """
    path = Path(path).expanduser()
    about, state = weights.read(path)
    add_run(path.parent)  # the file may come from someone else, and so may code beside it
    config, latent = about["config"], Latent()
    latent.dim = about["z_dim"]
    try:
        spec = DataSpec(**about["spec"])
        condition = make_condition(config, spec)
        with torch.random.fork_rng(devices=[]):  # of the initial weights
            if about["player"] == "generator":
                net = make_generator(config, spec, latent, condition, choose_device(device, "device"))
            else:
                net = make_discriminator(config, spec, condition, choose_device(device, "device"))
        net.load_state_dict(state)
    except (TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[-1].strip().rstrip(".")
        raise ValueError(f"{path}: its weights do not fit its config ({reason}).") from error
    return net.eval().requires_grad_(False)
