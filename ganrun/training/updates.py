"""What an update of a player found: its losses, gradients and logits, and what is logged of them.

With train.accumulate, the updates of parts of a batch add up to that of the whole batch.
"""

from typing import NamedTuple, Protocol, Self, TypeVar

import torch
from torch import Tensor

from ganrun.metric.ranks import share_above
from ganrun.training.eager import Grads


class Update(Protocol):
    """The result of one part of a batch, which the parts add up to (train.accumulate)."""

    def plus(self, part: Self) -> Self:
        """The sum of losses, terms and gradients, with the logits of both."""
        ...

    def mean(self, num: int) -> Self:
        """Losses, terms and gradients divided by `num`."""
        ...


U = TypeVar("U", bound=Update)


class DUpdate(NamedTuple):
    """One update of D. Logits are (B,).

    loss: without the terms added to it. terms: these, by TensorBoard tag; the last value of a lazy penalty, without the
    factor `every`. logistic: whether the loss is.
    """

    loss: Tensor
    real_logits: Tensor
    fake_logits: Tensor
    terms: dict[str, Tensor]
    grads: Grads
    logistic: bool

    def plus(self, part: "DUpdate") -> "DUpdate":
        return DUpdate(
            self.loss.detach() + part.loss.detach(),
            torch.cat([self.real_logits.detach(), part.real_logits.detach()]),
            torch.cat([self.fake_logits.detach(), part.fake_logits.detach()]),
            sums(self.terms, part.terms),
            added(self.grads, part.grads),
            self.logistic,
        )

    def mean(self, num: int) -> "DUpdate":
        terms = {tag: term / num for tag, term in self.terms.items()}
        return self._replace(loss=self.loss / num, terms=terms, grads=divided(self.grads, num))

    def scalars(self) -> dict[str, Tensor]:
        """The values to log, by TensorBoard tag."""
        logits = {"logits/real": self.real_logits.mean(), "logits/fake": self.fake_logits.mean()}
        return {"loss/d": self.loss, **self.terms, **logits, **self.accuracy(), "grad_norm/d": grad_norm(self.grads)}

    def accuracy(self) -> dict[str, Tensor]:
        """The share of pairs whose real logit is greater than the fake one; a tie counts one half. Chance level is .5.

        For a logistic loss also D's accuracy on real and on fake examples.
        """
        real, fake = self.real_logits, self.fake_logits
        found = {"accuracy/pairs": share_above(real, fake)}
        if self.logistic:
            found |= {"accuracy/real": (real > 0).float().mean(), "accuracy/fake": (fake < 0).float().mean()}
        return found


class GUpdate(NamedTuple):
    """One update of G."""

    loss: Tensor
    terms: dict[str, Tensor]
    grads: Grads

    def plus(self, part: "GUpdate") -> "GUpdate":
        loss = self.loss.detach() + part.loss.detach()
        return GUpdate(loss, sums(self.terms, part.terms), added(self.grads, part.grads))

    def mean(self, num: int) -> "GUpdate":
        terms = {tag: term / num for tag, term in self.terms.items()}
        return GUpdate(self.loss / num, terms, divided(self.grads, num))

    def scalars(self) -> dict[str, Tensor]:
        """The values to log, by TensorBoard tag."""
        return {"loss/g": self.loss, **self.terms, "grad_norm/g": grad_norm(self.grads)}


class BothUpdates(NamedTuple):
    """A simultaneous update of both players."""

    d: DUpdate
    g: GUpdate

    def plus(self, part: "BothUpdates") -> "BothUpdates":
        return BothUpdates(self.d.plus(part.d), self.g.plus(part.g))

    def mean(self, num: int) -> "BothUpdates":
        return BothUpdates(self.d.mean(num), self.g.mean(num))


def scalars(*updates: DUpdate | GUpdate) -> dict[str, float]:
    """The values to log of a step's updates, by TensorBoard tag. Waits for the device."""
    values = {tag: value for update in updates for tag, value in update.scalars().items()}
    numbers = torch.stack([value.detach().float() for value in values.values()]).tolist()
    return dict(zip(values, numbers, strict=True))


def sums(a: dict[str, Tensor], b: dict[str, Tensor]) -> dict[str, Tensor]:
    return {tag: term.detach() + b[tag].detach() for tag, term in a.items()}


def added(a: Grads, b: Grads) -> Grads:
    return tuple(None if x is None or y is None else x + y for x, y in zip(a, b, strict=True))


def divided(grads: Grads, num: int) -> Grads:
    return tuple(None if grad is None else grad / num for grad in grads)


def grad_norm(grads: Grads) -> Tensor:
    """The L2 norm of all gradients together."""
    norm: Tensor = torch.stack([grad.norm() for grad in grads if grad is not None]).norm()
    return norm
