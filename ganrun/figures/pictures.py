"""The pictures of a run at one moment, whatever its data: what `samples/` and TensorBoard show."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ganrun.run import Run
from ganrun.sampling import fixed_latents, generate, judge, labels_like

GRID = 64  # images in a grid
COLUMNS, ROWS = 10, 16  # of a grid with a row for each class, and the most of them
NUM_JUDGED = 1000  # examples of either kind in a figure of D's verdicts


class Pictures:
    """Draws from the same latents each time, so that pictures of one run can be compared."""

    def __init__(self, run: Run) -> None:
        self.run = run
        spec = run.dataset.spec
        self.tag = "samples/fixed_z" if spec.is_image else "figure/density"
        self.columns, self.y = None, None
        if run.condition is not None and spec.is_image:  # a row is a class, a column is a latent
            rows = min(spec.num_classes, ROWS)
            self.columns, self.y = COLUMNS, torch.arange(rows).repeat_interleave(COLUMNS)
            self.z = fixed_latents(run.latent, COLUMNS, run.device, run.seed).repeat(rows, 1)
        else:
            num = GRID if spec.is_image else 100_000 if self.possible else 1
            self.z = fixed_latents(run.latent, num, run.device, run.seed)

    @property
    def possible(self) -> bool:
        """Images and one-dimensional data can be shown; vectors of several dimensions, or with classes, cannot."""
        spec = self.run.dataset.spec
        return spec.is_image or (spec.shape == (1,) and self.run.condition is None)

    def draw(self, moment: str) -> np.ndarray:
        """An image (H, W, 3) of uint8. moment: for the title, where there is one."""
        samples = generate(self.run.sampler, self.z, self.y)
        if self.run.dataset.spec.is_image:
            from ganrun.figures.grid import grid

            return grid(self.run.dataset.spec.encode(samples), self.columns)
        return self._density(samples, f"{moment}: generated mean {samples.mean():.2f}, std {samples.std():.2f}")

    def verdicts(self, title: str) -> np.ndarray:
        """What D thinks: over one-dimensional data its surface, else how it judges real and generated examples."""
        run = self.run
        if run.dataset.spec.shape == (1,) and self.possible:
            return self._density(generate(run.sampler, self.z), title)
        num = min(NUM_JUDGED, len(run.dataset.train))
        real = run.dataset.train[:num]
        y = None if run.condition is None else labels_like(run.dataset.train, num, run.seed)
        fake = generate(run.G, fixed_latents(run.latent, num, run.device, run.seed), y)
        of_real = self._judge(run.dataset.spec.decode(real.x), None if y is None else real.y)

        from ganrun.figures.density import to_array
        from ganrun.figures.verdicts import verdict_figure

        return to_array(verdict_figure(of_real, self._judge(fake, y), self._logistic, title))

    def _density(self, samples: Tensor, title: str) -> np.ndarray:
        from ganrun.figures.density import axis_limits, density_figure, to_array

        x = torch.linspace(*axis_limits(self.run.dataset), 500)
        logits = self._judge(x[:, None], None)
        return to_array(density_figure(self.run.dataset, samples, x, logits, self._logistic, title))

    @property
    def _logistic(self) -> bool:
        return getattr(self.run.loss, "logistic", False)

    def _judge(self, x: Tensor, y: Tensor | None) -> Tensor:
        return judge(self.run.D, x, self.run.device, y)


def save_png(image: np.ndarray, path: Path) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
