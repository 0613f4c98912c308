"""The diagnosis of a run, as a person reads it and as result.json holds it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ganrun.diagnosis.remedy import command, remedy
from ganrun.diagnosis.rules import RULES, Finding, Numbers, not_converged
from ganrun.names import Config

HEALTHY = "healthy"


@dataclass(frozen=True)
class Diagnosis:
    """verdict: the name of the first finding, or healthy. remedies: a command to try against each finding."""

    verdict: str
    findings: tuple[Finding, ...]
    remedies: tuple[str, ...]
    measurements: Numbers

    def as_json(self) -> dict[str, Any]:
        findings = [asdict(f) | {"remedy": r} for f, r in zip(self.findings, self.remedies, strict=True)]
        numbers = {key: float(f"{value:.5g}") for key, value in self.measurements.items()}
        return {"verdict": self.verdict, "findings": findings, "measurements": numbers}

    def lines(self) -> list[str]:
        """In short: the verdict with what was measured, and what to try."""
        if not self.findings:
            return [f"diagnosis  {HEALTHY}{self._in_numbers()}"]
        return [f"diagnosis  {self.verdict}: {self.findings[0].measurement}", f"try        {self.remedies[0]}"]

    def text(self) -> str:
        """In full."""
        parts = [f"verdict: {self.verdict}{self._in_numbers() if not self.findings else ''}"]
        for f, r in zip(self.findings, self.remedies, strict=True):
            parts.append(
                f"{f.name}\n  measured   {f.measurement}\n  threshold  {f.threshold}\n"
                f"  origin     {f.origin}\n  try        {r}"
            )
        return "\n\n".join(parts)

    def _in_numbers(self) -> str:
        m = self.measurements
        if "energy" not in m:
            return ", as far as its losses tell: samples were not compared with so few training examples"
        return (
            f": energy distance to real examples {m['energy']:.3f}, coverage {m['coverage']:.0%} (of real examples "
            f"{m['coverage_real']:.0%}), lost {m['lost']:.0%}"
        )


def diagnose(measurements: Numbers, config: Config, overrides: Sequence[str] = (), is_image: bool = False) -> Diagnosis:
    """What every rule finds. A remedy is the run's own command line, which is `overrides`, with other settings."""
    findings = tuple(finding for rule in RULES if (finding := rule(measurements)) is not None)
    if not findings and (last := not_converged(measurements)) is not None:
        findings = (last,)
    remedies = tuple(command(overrides, remedy(f.name, config, is_image)) for f in findings)
    return Diagnosis(findings[0].name if findings else HEALTHY, findings, remedies, measurements)
