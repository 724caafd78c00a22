"""The energy that making a learner took, by codecarbon (an extra), added up over resumed runs.

Nothing is sent anywhere and nothing is written but work/energy.json. codecarbon reads the
processor's energy counters where the system lets it (RAPL, Power Gadget, NVML for GPUs) and
otherwise estimates from load and a table of processors; `method` says which of the two it was.
Machines it does not know can be described to it by CODECARBON_FORCE_CPU_POWER and
CODECARBON_FORCE_RAM_POWER, in watts.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from secondary_learners.errors import (
    MissingExtraError,
    SecondaryLearnersError,
    UnknownNameError,
)
from secondary_learners.files import write_json

__all__ = ["WORLD", "Energy", "Meter", "open_meter"]

log = logging.getLogger(__name__)

WORLD = "world average"
_EVERY = 15.0  # seconds between two readings, so what a killed run loses at most
_COUNTERS = {
    "intel_rapl": "measured by RAPL, all processes of the machine",
    "intel_power_gadget": "measured by Power Gadget, all processes of the machine",
    "windows_emi": "measured by Windows EMI, all processes of the machine",
}


@dataclass(frozen=True)
class Energy:
    """What evaluation.json says of energy.

    kwh: electricity. co2_kg: kilograms of CO2 equivalents at the mean intensity of `country` (an
    ISO code of three letters, or `WORLD`). seconds: measured time. stages: what was measured.
    method: which parts were measured and which estimated. runs: how many (resumed) runs were added
    up; each that was killed may lack its last 15 seconds.
    """

    kwh: float
    co2_kg: float
    country: str
    tool: str
    seconds: float
    method: str
    stages: str
    runs: int


@dataclass
class Meter:
    """The energy of one run's stages, kept in `path`. Made by `open_meter`.

    plan: a digest of what the energy is spent on, so that no other plan's figures are taken over.
    """

    path: Path
    plan: str
    country: str
    stages: str
    before: Energy | None = None
    finished: bool = False

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Measure the block; when it ends well the measurement is complete and never goes on."""
        if self.finished:
            yield
            return
        with _silence(), _tracker(self) as keep:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._write()  # from now on the run counts as a measured one
            yield
        if keep.total is None:
            log.warning("codecarbon gave no figure, so no energy is recorded")
            self.before = None
            self.path.unlink(missing_ok=True)
            return
        self.before, self.finished = keep.total, True
        self._write()

    def figures(self) -> dict[str, Any] | None:
        """evaluation["energy"]: the fields of `Energy`, or None where nothing was measured."""
        return asdict(self.before) if self.finished and self.before else None

    def _write(self, so_far: Energy | None = None) -> None:
        kept = so_far or self.before
        value = {"plan": self.plan, "country": self.country, "finished": self.finished}
        write_json(self.path, {**value, "energy": kept and asdict(kept)})


def open_meter(
    path: Path, country: str | None, *, plan: str, stages: str, begun: bool
) -> Meter | None:
    """The meter for a run whose state is in `path`, or None: nothing is to be measured.

    country: an ISO code or `WORLD`; None measures only what was begun with a meter, since a part
    that is not counted would make the sum wrong. begun: whether some of the work is done already.

    Raises MissingExtraError without codecarbon, UnknownNameError for a country it does not know,
    and SecondaryLearnersError when the run was begun with another country.
    """
    meter = _read(path, plan, stages)
    if meter is None:
        if country is None:
            return None
        _check_country(country)
        if begun:
            log.warning(
                "energy is not recorded: part of the work in %s was done without measuring it. "
                "Try another --out, to measure all of it.",
                path.parent,
            )
            return None
        return Meter(path, plan, country, stages)
    if country not in (None, meter.country):
        raise SecondaryLearnersError(
            f"{path.parent} was begun with the country {meter.country!r}, and this run has "
            f"{country!r}. Try `--country {meter.country}`, or another --out."
        )
    if not meter.finished:
        _check_country(meter.country)
    return meter


def _read(path: Path, plan: str, stages: str) -> Meter | None:
    """What an earlier run of the same plan kept; None when there is none, or it is damaged."""
    try:
        kept = json.loads(path.read_bytes())
        if kept["plan"] != plan:
            return None
        before = kept["energy"] and Energy(**kept["energy"])
        return Meter(path, plan, kept["country"], stages, before, kept["finished"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _check_country(country: str) -> None:
    try:
        from codecarbon.input import DataSource
    except ImportError as error:
        raise MissingExtraError("codecarbon", "energy") from error
    known = DataSource().get_global_energy_mix_data()  # type: ignore[no-untyped-call]
    if country != WORLD and country not in known:
        raise UnknownNameError("country", country, known, "--country FRA, an ISO code of 3 letters")


class _Keep:
    """An output of codecarbon: it calls these with the sums so far, from a thread of its own."""

    def __init__(self, meter: Meter) -> None:
        self.meter, self.method = meter, ""
        self.total: Energy | None = None
        self._lock = threading.Lock()

    def out(self, total: Any, delta: Any) -> None:
        self.live_out(total, delta)

    def live_out(self, total: Any, delta: Any) -> None:
        now = Energy(
            kwh=total.energy_consumed,
            co2_kg=total.emissions,
            country=self.meter.country,
            tool=f"codecarbon {total.codecarbon_version}",
            seconds=total.duration,
            method=self.method,
            stages=self.meter.stages,
            runs=1,
        )
        before = self.meter.before
        with self._lock:
            self.total = now if before is None else _sum(before, now)
            with contextlib.suppress(OSError):  # a full disk is for the run itself to report
                self.meter._write(self.total)

    def task_out(self, data: Any, experiment_name: Any) -> None: ...

    def exit(self) -> None: ...


def _sum(before: Energy, now: Energy) -> Energy:
    return replace(
        now,
        kwh=before.kwh + now.kwh,
        co2_kg=before.co2_kg + now.co2_kg,
        seconds=before.seconds + now.seconds,
        runs=before.runs + now.runs,
    )


@contextlib.contextmanager
def _tracker(meter: Meter) -> Iterator[_Keep]:
    """codecarbon without output, network or lock file, whatever its configuration files say."""
    from codecarbon import OfflineEmissionsTracker

    keep = _Keep(meter)
    tracker = OfflineEmissionsTracker(
        country_iso_code=None if meter.country == WORLD else meter.country,
        region=None,
        cloud_provider=None,
        cloud_region=None,
        electricitymaps_api_token="",  # not None, which would look for one in the environment
        emissions_endpoint=None,
        output_methods=[],
        output_handlers=[keep],
        allow_multiple_runs=True,  # False is a lock file and handlers of signals
        api_call_interval=1,
        measure_power_secs=_EVERY,
        tracking_mode="process",  # a shared machine's other work is not this learner's
    )
    tracker.start()
    keep.method = _method(getattr(tracker, "_hardware", []))
    try:
        yield keep
    finally:
        tracker.stop()


def _method(hardware: list[Any]) -> str:
    """How each part was had, in words. codecarbon tells it in its log only, hence the attributes.

    Without counters the processor is this process's share of its time, times the power at full
    load, from a table or 4 W a thread; idle power is then left out.
    """
    words = []
    for part in hardware:
        kind, mode = type(part).__name__, getattr(part, "_mode", "")
        if kind == "RAM":
            words.append(f"memory estimated as {part.total_power().W:.0f} W")
        elif kind == "GPU":
            words.append("GPU measured by its driver, all processes")
        elif mode in _COUNTERS:
            words.append(f"processor {_COUNTERS[mode]}")
        elif mode == "cpu_load":
            watts = f"{part._tdp:.0f} W at full load" if part._tdp else "an unknown power"
            words.append(f"processor estimated from this process's load and {watts}")
        else:
            words.append(f"{kind} as codecarbon has it ({mode or 'default'})")
    return "; ".join(sorted(words, reverse=True))


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """codecarbon's warnings are about precision, which `method` states; its INFO is a page."""
    logger = logging.getLogger("codecarbon")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
