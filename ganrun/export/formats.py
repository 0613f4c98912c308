"""The formats of exported networks: how each is written, and run by its own library."""

import io
import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ganrun.export.function import Function, draws_random_numbers
from ganrun.export.inputs import examples
from ganrun.export.source import FormatName, Source
from ganrun.export.weights import serialized

LARGEST_ONNX = 1_900_000_000  # bytes of weights in one file; protobuf allows 2 GiB
TRACED = 12  # examples in the traced batch: a number that no layer has as a size of its own
Run = Callable[..., Tensor]


class Format(ABC):
    """suffix: of its file. writes, runs: the libraries that are needed for it, besides torch."""

    name: FormatName
    suffix: str
    writes: Sequence[str] = ()
    runs: Sequence[str] = ()

    @abstractmethod
    def write(self, exported: "Exported", path: Path) -> None:
        """Write the file. Other files that it needs are in the same folder, and have names that begin with its own."""

    @abstractmethod
    def load(self, exported: "Exported", path: Path) -> Run:
        """The function in the file, run by the format's own library."""


class Exported:
    """A network that is written in one format or several. It is traced once."""

    def __init__(self, source: Source, uint8: bool) -> None:
        self.source, self.uint8 = source, uint8
        self.function = Function(source, uint8)

    @cached_property
    def program(self) -> torch.export.ExportedProgram:
        """The traced function. Raises ValueError if it cannot be traced for every batch size."""
        try:
            return self._traced(strict=False)
        except Exception:  # of many types
            with logging_off(), warnings.catch_warnings(action="ignore"):
                try:
                    return self._traced(strict=True)  # which also follows len(x)
                except Exception as error:
                    reason = str(error).strip().splitlines() or [type(error).__name__]
                    raise ValueError(
                        f"{self.source.player}: its forward pass cannot be traced for every batch size "
                        f"({reason[0].rstrip('.')}); format=safetensors stores its weights."
                    ) from error

    @property
    def shapes(self) -> tuple[dict[int, Any], ...]:
        batch = torch.export.Dim("batch")
        return tuple({0: batch} for _ in self.function.inputs)

    def _traced(self, strict: bool) -> torch.export.ExportedProgram:
        inputs = examples(self.function.inputs, TRACED)
        with torch.no_grad():
            return torch.export.export(self.function, inputs, dynamic_shapes=(self.shapes,), strict=strict)


class Safetensors(Format):
    name, suffix, writes, runs = "safetensors", ".safetensors", ("safetensors",), ("safetensors",)

    def write(self, exported: Exported, path: Path) -> None:
        path.write_bytes(serialized(exported.source))

    def load(self, exported: Exported, path: Path) -> Run:
        return exported.source.rebuild(path)


class Onnx(Format):
    name, suffix = "onnx", ".onnx"
    writes, runs = ("onnx", "onnxscript"), ("onnxruntime",)

    def write(self, exported: Exported, path: Path) -> None:
        if draws_random_numbers(exported.function):
            raise ValueError(
                f"format=onnx: this {exported.source.player} draws random numbers in its forward pass, so that no "
                "other library can repeat its output; give it a method with_noise "
                "(ganrun.network_protocols.DrawsNoise), or use format=torch_export."
            )
        names = [given.name for given in exported.function.inputs]
        output = "x" if exported.source.player == "generator" else "logits"
        inputs = examples(exported.function.inputs, TRACED)
        traced = exported.program
        with logging_off(), warnings.catch_warnings(action="ignore"):
            try:
                program = torch.onnx.export(
                    traced, inputs, dynamo=True, verbose=False, input_names=names, output_names=[output],
                    dynamic_shapes=exported.shapes,
                )  # fmt: skip
            except torch.onnx.OnnxExporterError as error:
                raise ValueError(
                    f"format=onnx: torch cannot convert this {exported.source.player} to ONNX ({first_cause(error)}); "
                    "use format=torch_export."
                ) from error
        assert program is not None
        size = sum(value.nbytes for value in exported.function.state_dict().values())
        program.save(path, external_data=size > LARGEST_ONNX)

    def load(self, exported: Exported, path: Path) -> Run:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [given.name for given in session.get_inputs()]

        def run(*inputs: Tensor) -> Tensor:
            (found,) = session.run(None, {name: x.numpy() for name, x in zip(names, inputs, strict=True)})
            return torch.from_numpy(found)

        return run


class TorchExport(Format):
    name, suffix = "torch_export", ".pt2"

    def write(self, exported: Exported, path: Path) -> None:
        buffer = io.BytesIO()  # on a full disk torch ends the process
        torch.export.save(exported.program, buffer)
        path.write_bytes(buffer.getbuffer())

    def load(self, exported: Exported, path: Path) -> Run:
        found: Run = torch.export.load(path).module()
        return found


FORMATS: dict[FormatName, Format] = {found.name: found for found in (Safetensors(), Onnx(), TorchExport())}


def first_cause(error: BaseException) -> str:
    """The message of the error that caused this one, in a line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


@contextmanager
def logging_off() -> Iterator[None]:
    """Without the log of torch's exporters, which says nothing that a user could use."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
