"""Secondary learners: small models that predict how much a training example will help.

Every public name is imported on first use, so that `import secondary_learners` stays fast and
never loads torch or transformers.
"""

import typing

__all__ = [
    "Constant",
    "Examples",
    "FilterReport",
    "FilteredSFTTrainer",
    "FilteredTrainer",
    "LearnerFilter",
    "LearnerPredictor",
    "MultistageFilter",
    "NaiveBayes",
    "PublishOptions",
    "Quantile",
    "RandomFilter",
    "ScoreColumn",
    "ScoreSampler",
    "ScoreWeights",
    "SecondaryLearnersError",
    "Shifting",
    "Soft",
    "__version__",
    "compare",
    "filtered",
    "information_gain",
    "list_learners",
    "load_base",
    "load_delta",
    "load_learner",
    "publish",
    "refresh",
    "run_trials",
]

_HOMES = {
    "Constant": "filtering.thresholds",
    "Examples": "text.sequences",
    "FilterReport": "filtering.stream",
    "FilteredSFTTrainer": "trainers.sft",
    "FilteredTrainer": "trainers.trainer",
    "LearnerFilter": "filtering.decisions",
    "LearnerPredictor": "filtering.predictors",
    "MultistageFilter": "filtering.multistage",
    "NaiveBayes": "filtering.predictors",
    "PublishOptions": "publishing.publish",
    "Quantile": "filtering.thresholds",
    "RandomFilter": "filtering.decisions",
    "ScoreColumn": "filtering.columns",
    "ScoreSampler": "filtering.sampling",
    "ScoreWeights": "filtering.weights",
    "SecondaryLearnersError": "errors",
    "Shifting": "filtering.thresholds",
    "Soft": "filtering.thresholds",
    "compare": "experiments.compare",
    "filtered": "filtering.stream",
    "information_gain": "gains.labels",
    "list_learners": "registry.index",
    "load_base": "registry.load",
    "load_delta": "registry.load_delta",
    "load_learner": "registry.load",
    "publish": "publishing.publish",
    "refresh": "experiments.refresh",
    "run_trials": "experiments.trials.sweep",
}

if typing.TYPE_CHECKING:
    from secondary_learners.errors import SecondaryLearnersError
    from secondary_learners.experiments.compare import compare
    from secondary_learners.experiments.refresh import refresh
    from secondary_learners.experiments.trials.sweep import run_trials
    from secondary_learners.filtering.columns import ScoreColumn
    from secondary_learners.filtering.decisions import LearnerFilter, RandomFilter
    from secondary_learners.filtering.multistage import MultistageFilter
    from secondary_learners.filtering.predictors import LearnerPredictor, NaiveBayes
    from secondary_learners.filtering.sampling import ScoreSampler
    from secondary_learners.filtering.stream import FilterReport, filtered
    from secondary_learners.filtering.thresholds import Constant, Quantile, Shifting, Soft
    from secondary_learners.filtering.weights import ScoreWeights
    from secondary_learners.gains.labels import information_gain
    from secondary_learners.publishing.publish import PublishOptions, publish
    from secondary_learners.registry.index import list_learners
    from secondary_learners.registry.load import load_base, load_learner
    from secondary_learners.registry.load_delta import load_delta
    from secondary_learners.text.sequences import Examples
    from secondary_learners.trainers.sft import FilteredSFTTrainer
    from secondary_learners.trainers.trainer import FilteredTrainer

    __version__: str
else:  # hidden from type checkers, for which it would make every misspelt name valid

    def __getattr__(name: str) -> object:
        import importlib

        if name == "__version__":
            value = importlib.import_module("importlib.metadata").version("secondary-learners")
        elif name in _HOMES:
            value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return __all__
