"""The speed of the MNIST experiment of Goodfellow et al. 2014 in fp32 and bf16. Writes benchmarks/goodfellow2014.json.

Compares ganrun's loop, with logging, pictures and checkpoints, with a hand-written loop with the same networks,
optimizers and update, alternately in one process, on one thread. The data are random bytes, since only time is
measured. docs/table1.md has the effect of the precision on the score.
"""

import json
import statistics
from collections.abc import Iterator
from pathlib import Path

import torch
from machine import describe
from speed import Turns, config_of, noise, rates_of, ratio
from torch.nn.functional import softplus

from ganrun.arch.goodfellow2014 import Discriminator, Generator
from ganrun.data.dataset import Dataset, DataSpec
from ganrun.trusted import trust

trust("goodfellow2014")  # this file
OUT = Path(__file__).with_suffix(".json")
SPEC = DataSpec((1, 28, 28), (0.0, 1.0), std=0.3)
BATCH = 100
TURN = {"fp32": 30, "bf16": 5}  # steps per turn; without bf16 hardware, a bf16 step takes seconds


def noise_digits() -> Dataset:
    """Random images of the size of MNIST, for `data._target_=goodfellow2014.noise_digits`."""
    return noise(SPEC)


def bare_loop(bf16: bool) -> Iterator[None]:
    """An expert's loop: both gradients from one pass, and an EMA of G. Each `next` is one step."""
    G, D = Generator(SPEC, 100, examples=noise_digits().train), Discriminator(SPEC)
    G_ema = Generator(SPEC, 100)
    G_ema.load_state_dict(G.state_dict())
    optimizers = [torch.optim.SGD(n.parameters(), 0.1, 0.5, fused=True) for n in (G, D)]
    weights, means, of_d = list(G.parameters()), list(G_ema.parameters()), list(D.parameters())
    images = noise_digits().train.x
    while True:
        real = images[torch.randint(0, len(images), (BATCH,))].float().div_(255)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            fake = G(torch.empty(BATCH, 100).uniform_(-(3**0.5), 3**0.5))
            real_logits, fake_logits = D(real).float(), D(fake).float()
        d_loss = 0.5 * (softplus(-real_logits).mean() + softplus(fake_logits).mean())
        d_grads = torch.autograd.grad(d_loss, of_d, retain_graph=True)
        g_grads = torch.autograd.grad(softplus(-fake_logits).mean(), weights)
        for params, grads in ((weights, g_grads), (of_d, d_grads)):
            for param, grad in zip(params, grads, strict=True):
                param.grad = grad
        for optimizer in optimizers:
            optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(means, weights, 0.001)
        yield


def cost(precision: str) -> dict[str, float]:
    line = ("experiment=goodfellow2014/mnist", "train.threads=1", "train.sample_every=1000", "train.diagnose=false")
    config = config_of(*line, f"train.precision={precision}") | {"metric": {}}
    config["data"] = {"_target_": "goodfellow2014.noise_digits", "value_range": [0, 1]}
    rates = rates_of(config, Turns({"bare": bare_loop(precision == "bf16")}, TURN[precision]))
    return {
        f"ganrun {precision}, steps/s": round(statistics.median(rates["ganrun"]), 2),
        f"ganrun {precision} / bare": ratio(rates["ganrun"], rates["bare"]),
    }


def main() -> None:
    figures = {**cost("fp32"), **cost("bf16")}
    figures["ganrun bf16 / fp32"] = round(figures["ganrun bf16, steps/s"] / figures["ganrun fp32, steps/s"], 3)
    print(json.dumps(figures, indent=2))
    OUT.write_text(json.dumps({"machine": describe(), "figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
