"""What `learners trials` prints: tables of an analysis, and a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from secondary_learners.cli.output import columns

if TYPE_CHECKING:
    from secondary_learners.experiments.trials.analysis import Analysis, TaskAnalysis
    from secondary_learners.experiments.trials.arms import ArmTest
    from secondary_learners.experiments.trials.plan import Plan

__all__ = ["analysis_text", "plan_text", "spreads"]

_SHOWN = (1, 2, 3, 5, 10, 20, 30)  # budgets; --json has them all


def analysis_text(analysis: Analysis) -> str:
    """All that an analysis says, one table after the other."""
    parts = ["Scores over seeds (sd: standard deviation)", spreads(analysis.tasks)]
    parts += ["\nExpected best of n trials ± sd from one sweep to another", _bests(analysis.tasks)]
    contrasts = _contrasts(analysis.tasks)
    if len(contrasts) > 1:
        parts += [
            "\nDo seeds differ? The best against the worst, which were picked for it, and all",
            columns(contrasts),
        ]
    for arm, seeds in analysis.initializations:
        best = ", ".join(f"{seed} ({rank:.1f})" for seed, rank in list(seeds.ranks.items())[:5])
        over = ", ".join([*seeds.tasks, *([f"arm {arm}"] if arm else [])])
        parts.append(
            f"\nInitializations over {over}: agreement W = {seeds.agreement:.2f} "
            f"(p = {seeds.p:.2g}); best mean ranks: {best}"
        )
    if any(task.stopping for task in analysis.tasks):
        parts += [
            "\nEarly stopping, by budget in full runs: picked on these trials, and advised",
            _stops(analysis.tasks),
        ]
    if analysis.arms:
        parts += ["\nArms, on the seeds that both ran", _arms(analysis.arms)]
    notes = "\n".join(f"note: {note}" for note in analysis.notes)
    return "\n".join([*parts, *([f"\n{notes}"] if notes else [])])


def _name(task: TaskAnalysis | Plan) -> str:
    return f"{task.task}, {task.arm}" if task.arm else task.task


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def spreads(tasks: tuple[TaskAnalysis, ...]) -> str:
    """The table of scores over seeds."""
    differences = list(tasks[0].seeds_for)
    head = ["task", "trials", "diverged", "mean", "sd", "within init", "within order", "best"]
    rows = [[*head, *(f"seeds for ±{difference:g}" for difference in differences)]]
    for task in tasks:
        spread = task.spread
        rows.append(
            [
                _name(task),
                str(spread.trials),
                "?" if task.diverged is None else str(task.diverged),
                *map(_number, (spread.mean, spread.deviation)),
                *map(_number, (spread.within_init, spread.within_order, spread.best)),
                *(str(task.seeds_for.get(difference) or "-") for difference in differences),
            ]
        )
    return columns(rows)


def _bests(tasks: tuple[TaskAnalysis, ...]) -> str:
    longest = max(tasks, key=lambda task: len(task.best_of))
    rows = [["task", *(f"n = {best.budget}" for best in longest.best_of)]]
    for task in tasks:
        cells = [f"{best.mean:.4f} ± {best.deviation:.4f}" for best in task.best_of]
        rows.append([_name(task), *cells, *[""] * (len(longest.best_of) - len(cells))])
    return columns(rows)


def _contrasts(tasks: tuple[TaskAnalysis, ...]) -> list[list[str]]:
    names = {"init": "initialization", "order": "data order"}
    rows = [["task", "seeds of", "best (seed)", "worst (seed)", "F", "p", "F of all", "p of all"]]
    for task in tasks:
        rows += [
            [
                _name(task),
                names[contrast.kind],
                f"{contrast.best_mean:.4f} ({contrast.best_seed})",
                f"{contrast.worst_mean:.4f} ({contrast.worst_seed})",
                *(
                    f"{value:.3g}"
                    for value in (contrast.f, contrast.p, contrast.f_all, contrast.p_all)
                ),
            ]
            for contrast in task.contrasts
        ]
    return rows


def _stops(tasks: tuple[TaskAnalysis, ...]) -> str:
    head = ["task", "budget", "best setting", "expected best", "without", "gain"]
    rows = [[*head, "the paper's advice", "gain"]]
    for task in tasks:
        rows += [
            [
                _name(task),
                str(stopped.plain.budget),
                str(stopped.setting),
                f"{stopped.mean:.4f} ± {stopped.deviation:.4f}",
                f"{stopped.plain.mean:.4f}",
                f"{stopped.gain:+.4f}",
                str(advised.setting),
                f"{advised.gain:+.4f}",
            ]
            for stopped, advised in zip(task.stopping, task.advised, strict=True)
            if stopped.plain.budget in _SHOWN
        ]
    return columns(rows)


def _arms(tests: tuple[ArmTest, ...]) -> str:
    rows = [
        ["task", "arms", "pairs", "difference", "p", "sds", "p (sds)", "seeds paired", "unpaired"]
    ]
    for test in tests:
        rows.append(
            [
                test.task,
                f"{test.second or 'none'} - {test.first or 'none'}",
                str(test.pairs),
                f"{test.difference:+.4f}",
                f"{test.p:.3g}",
                " and ".join(_number(value) for value in reversed(test.deviations)),
                f"{test.p_spread:.3g}",
                str(test.seeds_paired or "-"),
                str(test.seeds_unpaired or "-"),
            ]
        )
    return columns(rows)


def plan_text(plan: Plan) -> str:
    """How to spend a budget, and what it is worth."""
    setting = plan.setting
    lines = [
        f"{_name(plan)}: with a budget of {plan.budget} full runs, {setting} "
        f"(cost {setting.cost:.2f}).",
        f"  expected best  {plan.expected:.4f} ± {plan.error:.4f} (one sweep to another: "
        f"± {plan.deviation:.4f})",
        f"  all to the end {plan.plain:.4f}",
        f"  gain           {plan.gain:+.4f} ± {plan.gain_error:.4f}, after {plan.optimism:.4f} "
        "off for having picked the best of many settings",
    ]
    if not setting.stops:
        lines.append(f"  best with early stopping, not worth it: {plan.candidate}")
    return "\n".join([*lines, *(f"  mind: {warning}" for warning in plan.warnings)])
