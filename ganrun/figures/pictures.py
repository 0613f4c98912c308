"""The picture of a run at one moment, whatever its data: what `samples/` and TensorBoard show."""

from pathlib import Path

import numpy as np
import torch

from ganrun.run import Run
from ganrun.sampling import evaluating, fixed_latents, generate

GRID = 64  # images in a grid


class Pictures:
    """Draws from the same latents each time, so that pictures of one run can be compared."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.tag = "samples/fixed_z" if run.dataset.spec.is_image else "figure/density"
        num = GRID if run.dataset.spec.is_image else 100_000
        self.z = fixed_latents(run.latent, num if self.possible else 1, run.device, run.seed)

    @property
    def possible(self) -> bool:
        """Images and one-dimensional data can be shown; vectors of several dimensions cannot."""
        return self.run.dataset.spec.is_image or self.run.dataset.spec.shape == (1,)

    def draw(self, step: int) -> np.ndarray:
        """An image (H, W, 3) of uint8."""
        run = self.run
        samples = generate(run.sampler, self.z)
        if run.dataset.spec.is_image:
            from ganrun.figures.grid import grid

            return grid(run.dataset.spec.encode(samples))

        from ganrun.figures.density import axis_limits, density_figure, to_array

        x = torch.linspace(*axis_limits(run.dataset), 500)
        with evaluating(run.D):
            logits = run.D(x[:, None].to(run.device)).float().cpu()
        title = f"step {step:,}: generated mean {samples.mean():.2f}, std {samples.std():.2f}"
        logistic = getattr(run.loss, "logistic", False)
        return to_array(density_figure(run.dataset, samples, x, logits, logistic, title))


def save_png(image: np.ndarray, path: Path) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
