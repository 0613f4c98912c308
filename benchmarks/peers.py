"""Training speed beside that of peers: their own trainers, with their networks, in turns. Writes benchmarks/peers.json.

    git clone https://github.com/torchgan/torchgan
    git clone https://github.com/kwotsin/mimicry
    python benchmarks/peers.py .          # the folder that holds both; what is not there is left out
    python benchmarks/peers.py . mimicry  # one of them

On one core, batch size 64, random images of the size of MNIST and CIFAR-10 for all:

- dataloader: the MLPs of the first GAN tutorials, in a loop with a DataLoader, as they are written;
- torchgan: its DCGAN with its Trainer;
- mimicry: its SNGAN for 32x32 pixels with its Trainer, one update of D per step.

Each is measured in processes of their own, in turns with `ganrun` on the same networks, loss and optimizer, in fp32 and
in bf16, which the peers' trainers do not have. mimicry also needs scikit-image.
"""

import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import torch
from machine import describe
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

OUT = Path(__file__).with_suffix(".json")
TURNS, BATCH, LR = 3, 64, 2e-4
STEPS = {"dataloader": (20, 200), "torchgan": (4, 24), "mimicry": (1, 4)}  # to warm up, and measured
BETAS = {"dataloader": (0.5, 0.999), "torchgan": (0.5, 0.999), "mimicry": (0.0, 0.9)}
SHAPE = {"dataloader": (1, 28, 28), "torchgan": (3, 32, 32), "mimicry": (3, 32, 32)}
Z_DIM = {"dataloader": 100, "torchgan": 128, "mimicry": 128}
LOSS = {
    "dataloader": "nonsaturating",
    "torchgan": "minimax",
    "mimicry": "hinge",
}  # torchgan's minimax is non-saturating


def images(peer: str, num: int = 10000) -> Tensor:
    return torch.randint(0, 256, (num, *SHAPE[peer]), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Pictures(Dataset[tuple[Tensor, int]]):
    """As the data sets of torchvision: each example becomes a PIL image, then a tensor."""

    def __init__(self, peer: str) -> None:
        self.x = images(peer).permute(0, 2, 3, 1).squeeze(3).numpy()
        channels = SHAPE[peer][0]
        self.transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize((0.5,) * channels, (0.5,) * channels)]
        )

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.x[index])), 0


# The peers' networks


class MLP(nn.Module):
    """A network of linear layers, of which G's have batch norm."""

    def __init__(self, *sizes: int, generator: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number, (before, after) in enumerate(itertools.pairwise(sizes[:-1])):
            layers += [nn.Linear(before, after), *([nn.BatchNorm1d(after)] if generator and number else [])]
            layers.append(nn.LeakyReLU(0.2))
        self.net = nn.Sequential(*layers, nn.Linear(*sizes[-2:]), *([nn.Tanh()] if generator else []))
        self.generator = generator

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        out = self.net(x.flatten(1))
        return out.unflatten(1, SHAPE["dataloader"]) if self.generator else out.flatten()


class Wrapped(nn.Module):
    """A peer's network behind ganrun's interface."""

    def __init__(self, net: nn.Module, generator: bool) -> None:
        super().__init__()
        self.net, self.generator = net, generator

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        out = self.net(x)
        return out if self.generator else out.flatten()


def networks(peer: str) -> tuple[nn.Module, nn.Module]:
    if peer == "dataloader":
        return MLP(100, 128, 256, 512, 1024, 784, generator=True), MLP(784, 512, 256, 1, generator=False)
    if peer == "torchgan":
        from torchgan.models import DCGANDiscriminator, DCGANGenerator

        return DCGANGenerator(**TORCHGAN_G), DCGANDiscriminator(**TORCHGAN_D)
    without_tensorflow()
    from torch_mimicry.nets import sngan

    return sngan.SNGANGenerator32(), sngan.SNGANDiscriminator32()


TORCHGAN_G = {"encoding_dims": 128, "out_channels": 3, "out_size": 32, "step_channels": 64}
TORCHGAN_D = {"in_channels": 3, "in_size": 32, "step_channels": 64}


def without_tensorflow() -> None:
    """Let mimicry be imported without TensorFlow, which only its metrics need; TensorBoard does not look for it."""
    sys.modules["tensorboard.compat.notf"] = types.ModuleType("notf")
    for name in ("tensorflow", "tensorflow.compat", "tensorflow.compat.v1"):
        sys.modules[name] = MagicMock(__spec__=ModuleSpec(name, None))


def g_of(spec: Any, z_dim: int, peer: str) -> nn.Module:
    """The peer's G for `arch.generator._target_=peers.g_of`."""
    return Wrapped(networks(peer)[0], True)


def d_of(spec: Any, peer: str) -> nn.Module:
    return Wrapped(networks(peer)[1], False)


def data_of(peer: str) -> Any:
    from ganrun.data.dataset import Dataset as GanrunDataset
    from ganrun.data.dataset import DataSpec, Split

    x = images(peer)
    return GanrunDataset(DataSpec(SHAPE[peer], (-1.0, 1.0), std=0.5), Split(x), Split(x[:0]), Split(x[:0]))


# Their trainers


class Done(Exception):
    pass


def ticking(optimizer: Any, peer: str, times: list[float]) -> Any:
    """The optimizer of G, which notes the time of each step, and raises Done after enough of them."""
    step = optimizer.step

    def noted(*args: Any, **kwargs: Any) -> Any:
        found = step(*args, **kwargs)
        times.append(time.perf_counter())
        if len(times) > sum(STEPS[peer]):
            raise Done
        return found

    optimizer.step = noted
    return optimizer


def train_dataloader(loader: DataLoader[Any], times: list[float]) -> None:
    G, D = networks("dataloader")
    g_optimizer, d_optimizer = (torch.optim.Adam(net.parameters(), LR, BETAS["dataloader"]) for net in (G, D))
    ticking(g_optimizer, "dataloader", times)
    criterion = nn.BCEWithLogitsLoss()
    for _ in itertools.count():
        for real, _ in loader:
            ones, zeros = torch.ones(len(real)), torch.zeros(len(real))
            g_optimizer.zero_grad()
            fake = G(torch.randn(len(real), 100))
            criterion(D(fake), ones).backward()
            g_optimizer.step()
            d_optimizer.zero_grad()
            (0.5 * (criterion(D(real), ones) + criterion(D(fake.detach()), zeros))).backward()
            d_optimizer.step()


def train_torchgan(loader: DataLoader[Any], times: list[float]) -> None:
    import torch.optim.lr_scheduler
    from torchgan.losses import MinimaxDiscriminatorLoss, MinimaxGeneratorLoss
    from torchgan.models import DCGANDiscriminator, DCGANGenerator
    from torchgan.trainer import Trainer

    optimizer = {"name": torch.optim.Adam, "args": {"lr": LR, "betas": BETAS["torchgan"]}}
    nets = {
        "generator": {"name": DCGANGenerator, "args": TORCHGAN_G, "optimizer": optimizer},
        "discriminator": {"name": DCGANDiscriminator, "args": TORCHGAN_D, "optimizer": optimizer},
    }
    losses = [MinimaxGeneratorLoss(), MinimaxDiscriminatorLoss()]
    trainer = Trainer(
        nets, losses, sample_size=64, epochs=1, device=torch.device("cpu"), log_dir="log", checkpoints="model/gan"
    )
    ticking(trainer.optimizer_generator, "torchgan", times)
    trainer(loader)


def train_mimicry(loader: DataLoader[Any], times: list[float]) -> None:
    G, D = networks("mimicry")
    from torch_mimicry.training import Trainer

    g_optimizer, d_optimizer = (torch.optim.Adam(net.parameters(), LR, BETAS["mimicry"]) for net in (G, D))
    ticking(g_optimizer, "mimicry", times)
    Trainer(
        netD=D, netG=G, optD=d_optimizer, optG=g_optimizer, n_dis=1, num_steps=10**6, lr_decay="linear",
        dataloader=loader, log_dir="log", device=torch.device("cpu"),
    ).train()  # fmt: skip


TRAINERS: dict[str, Callable[[DataLoader[Any], list[float]], None]] = {
    "dataloader": train_dataloader,
    "torchgan": train_torchgan,
    "mimicry": train_mimicry,
}


def ganrun_steps(peer: str, precision: str) -> Iterator[float]:
    """The time after each step of ganrun's loop on the peer's networks, with its logs."""
    import ganrun
    from ganrun.protocols import Observer
    from ganrun.records.board import Board
    from ganrun.records.run_dir import RunDir
    from ganrun.training.build import build
    from ganrun.training.loop import Status, train_loop

    ganrun.trust("peers")
    shape = "mnist" if peer == "dataloader" else "cifar10"
    config = ganrun.compose(
        f"data={shape}", f"loss={LOSS[peer]}", f"train.precision={precision}", "train.n_critic=1", "train.threads=1",
        "optimizer=adam", f"optimizer.lr={LR}", f"optimizer.betas=[{BETAS[peer][0]},{BETAS[peer][1]}]",
        f"train.steps={sum(STEPS[peer]) + 1}", "train.log_every=10", "train.sample_every=0", "train.diagnose=false",
    )  # fmt: skip
    config["arch"] = {
        "z_dim": Z_DIM[peer],
        "generator": {"_target_": "peers.g_of", "peer": peer},
        "discriminator": {"_target_": "peers.d_of", "peer": peer},
    }
    config["data"] = {"_target_": "peers.data_of", "peer": peer}
    times: list[float] = []

    def stop() -> bool:
        times.append(time.perf_counter())
        return False

    with RunDir(Path("run")) as run_dir:
        train_loop(build(config), run_dir, config, None, Status(), stop, Board(run_dir, {}), Observer())
    yield from times


def measure(peer: str, who: str) -> float:
    """Steps per second of the peer's trainer, or of ganrun with the precision `who`: from the median time of a step."""
    torch.set_num_threads(1)
    times: list[float] = []
    if who == "peer":
        with contextlib.suppress(Done):
            TRAINERS[peer](DataLoader(Pictures(peer), BATCH, shuffle=True, num_workers=0), times)
    else:
        times = list(ganrun_steps(peer, who))
    return 1 / statistics.median(after - before for before, after in itertools.pairwise(times[STEPS[peer][0] :]))


def in_process(peer: str, who: str, clones: Path) -> float:
    """`measure` in a process of its own, in an empty folder."""
    paths = [str(clones / "torchgan"), str(clones / "mimicry"), str(Path(__file__).parent), *sys.path]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
    }
    code = f"import peers; print(peers.measure({peer!r}, {who!r}))"
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{peer}, {who}: {done.stderr.strip().splitlines()[-1]}")
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    clones = Path(sys.argv[1] if len(sys.argv) > 1 else ".").absolute()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    found: dict[str, Any] = json.loads(OUT.read_text())["figures"] if OUT.exists() else {}
    for peer in sys.argv[2:] or TRAINERS:
        if peer != "dataloader" and not (clones / peer).is_dir():
            print(f"{peer:12} left out: there is no folder {peer} in {clones.name}")
            continue
        rates: dict[str, list[float]] = {who: [] for who in ("peer", "fp32", "bf16")}
        for _, (who, turns) in itertools.product(range(TURNS), rates.items()):
            turns.append(round(in_process(peer, who, clones), 3))
            print(f"{peer:12} {who:5} {turns[-1]:8.3f} steps/s", flush=True)
        times = {who: [mine / theirs for mine, theirs in zip(rates[who], rates["peer"], strict=True)] for who in rates}
        found[peer] = {
            "steps/s": {"peer" if who == "peer" else f"ganrun {who}": turns for who, turns in rates.items()},
            **{f"ganrun {who} / peer": round(statistics.median(times[who]), 2) for who in ("fp32", "bf16")},
        }
        print(json.dumps(found[peer]), flush=True)
        OUT.write_text(json.dumps({"machine": describe(), "batch_size": BATCH, "figures": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
