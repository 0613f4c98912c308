"""The pictures of a run at one moment, whatever its data: what `samples/` and TensorBoard show."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ganrun import frames
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
            self.num = GRID if spec.is_image else 100_000 if spec.shape == (1,) else 0
            self.z = fixed_latents(run.latent, GRID if spec.is_image else 1, run.device, run.seed)

    @property
    def possible(self) -> bool:
        """Images can be shown, and data of one or two dimensions; longer vectors, or those with classes, cannot."""
        return self.run.dataset.spec.is_image or frames.possible(self.run)

    def draw(self, moment: str) -> np.ndarray:
        """An image (H, W, 3) of uint8. moment: for the title, where there is one."""
        if not self.run.dataset.spec.is_image:
            return self._vectors(moment, with_moments=True)
        from ganrun.figures.grid import grid

        samples = generate(self.run.sampler, self.z, self.y)
        return grid(self.run.dataset.spec.encode(samples), self.columns)

    def verdicts(self, title: str) -> np.ndarray:
        """What D thinks: over one or two dimensions its surface, else how it judges real and generated examples."""
        run = self.run
        if frames.possible(run):
            return self._vectors(title)
        num = min(NUM_JUDGED, len(run.dataset.train))
        real = run.dataset.train[:num]
        y = None if run.condition is None else labels_like(run.dataset.train, num, run.seed)
        fake = generate(run.G, fixed_latents(run.latent, num, run.device, run.seed), y)
        of_real = self._judge(run.dataset.spec.decode(real.x), None if y is None else real.y)

        from ganrun.figures.density import to_array
        from ganrun.figures.verdicts import verdict_figure

        return to_array(verdict_figure(of_real, self._judge(fake, y), self._logistic, title))

    def _vectors(self, title: str, with_moments: bool = False) -> np.ndarray:
        from ganrun.figures.density import density_figure, to_array
        from ganrun.figures.plane import plane_figure

        frame = frames.capture(self.run, 0, self.num)
        if with_moments:
            mean, std = (", ".join(f"{value:.2f}" for value in values) for values in (frame.mean, frame.std))
            title = f"{title}: generated mean {mean}, std {std}"
        draw = density_figure if len(frame.mean) == 1 else plane_figure
        return to_array(draw(self.run.dataset, frame, title))

    @property
    def _logistic(self) -> bool:
        return getattr(self.run.loss, "logistic", False)

    def _judge(self, x: Tensor, y: Tensor | None) -> Tensor:
        return judge(self.run.D, x, self.run.device, y)


def save_png(image: np.ndarray, path: Path) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
