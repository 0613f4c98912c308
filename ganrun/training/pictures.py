"""The pictures of a run at one step, for `samples/` and TensorBoard."""

import numpy as np
import torch
from torch import Tensor

from ganrun.training.capture import can_capture, capture
from ganrun.training.run import Run
from ganrun.training.sampling import d_logits, fixed_latents, generate, labels_like

NUM_IN_GRID = 64  # images in a grid
COLUMNS, ROWS = 10, 16  # at most, of a grid with a row for each class
NUM_EXAMPLES = 1000  # real, and generated, in a figure of D's logits
NUM_ROWS = 2000  # of a table, real, and generated


class Pictures:
    """Pictures from the same latents at every step, so that they can be compared.

    matplotlib and Pillow are imported with the first picture, so that a run without pictures starts faster.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        spec = run.dataset.spec
        self.tag = "samples/fixed_z" if spec.is_image else "figure/table" if spec.form else "figure/density"
        self.columns: int | None = None
        self.y: Tensor | None = None
        if run.condition.uses_labels and spec.is_image:  # a row is a class, a column is a latent
            rows = min(spec.num_classes, ROWS)
            self.columns, self.y = COLUMNS, torch.arange(rows).repeat_interleave(COLUMNS)
            self.z = fixed_latents(run.latent, COLUMNS, run.device, run.seed).repeat(rows, 1)
        else:
            num = NUM_IN_GRID if spec.is_image else NUM_ROWS if spec.form else 1
            self.z = fixed_latents(run.latent, num, run.device, run.seed)
            if run.condition.uses_labels and spec.form:
                self.y = labels_like(run.dataset.train, num, run.seed)

    @property
    def possible(self) -> bool:
        """Whether samples can be drawn: images, tables, and data of one or two dimensions without labels."""
        spec = self.run.dataset.spec
        return spec.is_image or spec.form is not None or can_capture(self.run)

    def draw(self, moment: str) -> np.ndarray:
        """Samples as an image, uint8 (H, W, 3). moment: for the title, if the picture has one."""
        if self.run.dataset.spec.form:
            return self._draw_table(moment)
        if not self.run.dataset.spec.is_image:
            return self._draw_vectors(moment, with_moments=True)
        from ganrun.figures.grid import grid

        samples = generate(self.run.sampler, self.z, self.y)
        return grid(self.run.dataset.spec.encode(samples), self.columns)

    def draw_discriminator(self, title: str) -> np.ndarray:
        """D over one or two dimensions, else histograms of D on real and generated examples; uint8 (H, W, 3)."""
        run = self.run
        if can_capture(run):
            return self._draw_vectors(title)
        num = min(NUM_EXAMPLES, len(run.dataset.train))
        real = run.dataset.train[:num]
        y = labels_like(run.dataset.train, num, run.seed) if run.condition.uses_labels else None
        fake = generate(run.G, fixed_latents(run.latent, num, run.device, run.seed), y)
        size, x = run.options.batch_size, run.dataset.spec.decode(real.x)
        real_logits = d_logits(run.D, x, run.device, size, None if y is None else real.y)
        fake_logits = d_logits(run.D, fake, run.device, size, y)

        from ganrun.figures.density import to_array
        from ganrun.figures.logits import logits_figure

        return to_array(logits_figure(real_logits, fake_logits, run.loss.logistic, title))

    def _draw_table(self, title: str) -> np.ndarray:
        from ganrun.figures.density import to_array
        from ganrun.figures.table import table_figure

        form, real = self.run.dataset.spec.form, self.run.dataset.train.x[:NUM_ROWS].cpu()
        assert form is not None, "checked before"
        return to_array(table_figure(form, real, generate(self.run.sampler, self.z, self.y), title))

    def _draw_vectors(self, title: str, with_moments: bool = False) -> np.ndarray:
        from ganrun.figures.density import density_figure, to_array
        from ganrun.figures.plane import plane_figure

        flat = self.run.dataset.spec.shape == (1,)
        frame = capture(self.run, 0, 100_000 if flat else 0)
        if with_moments:
            mean, std = (", ".join(f"{value:.2f}" for value in values) for values in (frame.mean, frame.std))
            title = f"{title}: generated mean {mean}, std {std}"
        draw = density_figure if flat else plane_figure
        return to_array(draw(self.run.dataset, frame, title))
