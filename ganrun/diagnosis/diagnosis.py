"""The diagnosis of a run, as text and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ganrun.diagnosis.remedy import Setup, command, remedy
from ganrun.diagnosis.rules import Finding, Numbers, findings

HEALTHY = "healthy"


@dataclass(frozen=True)
class Diagnosis:
    """The result of a diagnosis.

    name: of the first finding, or healthy. remedies: for each finding a command to try.
    """

    name: str
    findings: tuple[Finding, ...]
    remedies: tuple[str, ...]
    measurements: Numbers

    def as_json(self) -> dict[str, Any]:
        findings = [asdict(f) | {"remedy": r} for f, r in zip(self.findings, self.remedies, strict=True)]
        numbers = {key: float(f"{value:.5g}") for key, value in self.measurements.items()}
        return {"name": self.name, "findings": findings, "measurements": numbers}

    def summary(self) -> list[str]:
        """Lines for the console: the first finding with its measurement, and its remedy."""
        if not self.findings:
            return [f"diagnosis  {HEALTHY}{self._numbers()}"]
        return [f"diagnosis  {self.name}: {self.findings[0].measurement}", f"try        {self.remedies[0]}"]

    def text(self) -> str:
        """All findings in full."""
        parts = [f"diagnosis: {self.name}{'' if self.findings else self._numbers()}"]
        for f, r in zip(self.findings, self.remedies, strict=True):
            parts.append(
                f"{f.name}\n  measured   {f.measurement}\n  threshold  {f.threshold}\n"
                f"  origin     {f.origin}\n  try        {r}"
            )
        return "\n\n".join(parts)

    def _numbers(self) -> str:
        m = self.measurements
        if "energy" not in m:
            return ", based on its losses only: there are too few training examples to compare samples with"
        return (
            f": energy distance to real examples {m['energy']:.3f}, coverage {m['coverage']:.0%} (of real examples "
            f"{m['coverage_real']:.0%}), lost {m['lost']:.0%}"
        )


def diagnose(measurements: Numbers, setup: Setup, overrides: Sequence[str] = ()) -> Diagnosis:
    """Apply all rules. overrides: of the run's command line, from which remedies are made."""
    found = findings(measurements)
    remedies = tuple(command(overrides, remedy(f.name, setup)) for f in found)
    return Diagnosis(found[0].name if found else HEALTHY, found, remedies, measurements)
