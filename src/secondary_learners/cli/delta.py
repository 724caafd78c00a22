"""`learners delta`: make, apply and show deltas, and measure how far fine-tuning moved a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from secondary_learners.cli.devices import resolve_device
from secondary_learners.cli.invocation import invocation
from secondary_learners.cli.make import report_made
from secondary_learners.cli.output import Output, with_output
from secondary_learners.errors import ArtifactError, SecondaryLearnersError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["delta_command"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group("delta")
def delta_command() -> None:
    """Tasks as tiny deltas: changed layers, or a mask of one bit a weight, and a head.

    \b
    learners delta make --task sst2 --train train.tsv --test dev.tsv --out runs/sst2-mask
    learners delta apply runs/sst2-mask --test dev.tsv
    learners delta distances runs/my-fine-tuned-model --base mini --plot distances.png
    """


@delta_command.command("make")
@click.option("--train", required=True, type=_FILE, help="TSV: a header, `label`, and text.")
@click.option("--test", required=True, type=_FILE, help="TSV like it, not trained on.")
@click.option("--task", help="What the task is called.  [the folder of --train]")
@click.option("--base", default="mini", show_default=True, help="Base model.")
@click.option("--kind", type=click.Choice(["mask", "layers"]), default="mask", show_default=True)
@click.option(
    "--layers",
    multiple=True,
    help="Regular expression for the weights to mask or tune.  [those that a short full "
    "fine-tuning turns most]",
)
@click.option("--share", type=float, help="Of the weights, at most.  [0.6 masked, 0.15 tuned]")
@click.option("--sparsity", type=float, default=0.2, show_default=True, help="A mask's first.")
@click.option(
    "--start", type=click.Choice(["magnitude", "random"]), default="magnitude", show_default=True
)
@click.option("--stored", type=click.Choice(["float16", "bfloat16", "float32"]), default="float16")
@click.option("--examples", type=click.IntRange(min=0), default=0, help="To train on; 0: all.")
@click.option("--epochs", type=float, default=2.0, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True)
@click.option("--learning-rate", type=float, default=5e-4, show_default=True, help="Of weights.")
@click.option("--score-learning-rate", type=float, default=0.05, show_default=True)
@click.option("--head-learning-rate", type=float, default=1e-3, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--compare/--no-compare", default=True, help="Fine-tune the whole model, too.")
@click.option("--license", default="unknown", help="Of the delta's weights, such as apache-2.0.")
@click.option("--attribution", default="", help="Where the data are from, for the card.")
@click.option("--language", default="", help="Of the text, for the card, such as en.")
@click.option("--summary", default="", help="One line for the card.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda or auto.")
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the delta; its name is the delta's.",
)
@with_output
def make_command(
    output: Output,
    train: Path,
    test: Path,
    task: str | None,
    base: str,
    device: str,
    compare: bool,
    out: Path,
    **options: Any,
) -> None:
    """Fine-tune a base model on a task and write what changed as a delta."""
    from secondary_learners.deltas.settings import Training, Tuning
    from secondary_learners.recipes.delta.recipe import DeltaRecipe
    from secondary_learners.recipes.kinds import kind_of
    from secondary_learners.recipes.run import Run, run_recipe

    training = Training(
        **{
            name: options.pop(name)
            for name in (
                "epochs",
                "batch_size",
                "learning_rate",
                "score_learning_rate",
                "head_learning_rate",
            )
        }
    )
    tuning = Tuning(
        training=training,
        **{name: options.pop(name) for name in ("kind", "layers", "share", "sparsity", "start")},
    )
    recipe = DeltaRecipe(
        name=out.absolute().name.lower(),
        task=task or train.absolute().parent.name,
        base=base,
        train=str(train),
        test=str(test),
        tuning=tuning,
        **options,
    )
    run = Run(
        out=out,
        device=resolve_device(device),
        command=invocation(),
        progress=output.progress,
        compare=compare,
    )
    made = run_recipe(recipe, run)
    assert made is not None
    report_made(output, made, kind_of(recipe).report(made))


@delta_command.command("apply")
@click.argument("delta")
@click.option("--base", help="Base model.  [the delta's own]")
@click.option("--test", type=_FILE, help="TSV to measure it on.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Save the merged model there, for transformers."
)
@with_output
def apply_command(
    output: Output, delta: str, base: str | None, test: Path | None, out: Path | None
) -> None:
    """Put DELTA (a name, a repository or ./FOLDER) on its base model; measure or save that."""
    from dataclasses import asdict

    from secondary_learners.files import atomic_folder
    from secondary_learners.registry.load import load_base
    from secondary_learners.registry.load_delta import base_reference, find_delta
    from secondary_learners.tasks.classifier import classifier
    from secondary_learners.tasks.encoding import read_encoded
    from secondary_learners.tasks.training import evaluate

    if out is not None and out.exists():
        raise click.UsageError(f"--out {out} exists already: name a new folder.")
    if test is None and out is None:
        raise click.UsageError("say what for: --test FILE measures it, --out FOLDER merges it.")
    chosen = find_delta(delta)
    config = chosen.config
    model, tokenizer = load_base(base or base_reference(config))
    merged = chosen.merge(classifier(model, len(config.classes)))
    value: dict[str, Any] = {"delta": config.name}
    lines = []
    if test is not None:
        length = config.task.get("max_length")
        examples = read_encoded(
            test,
            tokenizer,
            classes=config.classes,
            max_length=length if isinstance(length, int) and length > 0 else 128,
        )
        metrics = evaluate(merged, examples)
        value |= asdict(metrics)
        lines.append(
            f"accuracy {metrics.accuracy:.3f}, Matthews correlation {metrics.mcc:.3f} on "
            f"{metrics.examples:,} examples"
        )
    if out is not None:
        with atomic_folder(out) as folder:
            merged.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        value["folder"] = str(out)
        lines.append(f"merged model: {out}")
    output.result("\n".join(lines), value)


@delta_command.command("show")
@click.argument("delta")
@with_output
def show_command(output: Output, delta: str) -> None:
    """Show the card of DELTA: a name, a repository or a folder (./FOLDER)."""
    from secondary_learners.registry.load_delta import delta_files

    files = delta_files(delta)
    value = {}
    for name in ("config.json", "evaluation.json"):
        try:
            value[name.removesuffix(".json")] = json.loads(files.read(name))
        except ValueError as error:
            raise ArtifactError(
                f"{files.folder / name} is damaged: {error}. Get the folder again."
            ) from error
    text = files.read("README.md").decode("utf-8", errors="replace")
    if text.startswith("---\n"):  # the metadata is for the Hub
        text = text.split("\n---\n", 1)[1].lstrip()
    output.result(text, value)


@delta_command.command("distances")
@click.argument("tuned")
@click.option("--base", help="Base model.  [the delta's own]")
@click.option("--share", type=float, help="Also mark the layers that `delta make` would tune.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw them, too.")
@with_output
def distances_command(
    output: Output, tuned: str, base: str | None, share: float | None, plot: Path | None
) -> None:
    """How far each layer of TUNED is from its base model: L0, L1 and angle.

    TUNED is a folder with a fine-tuned model, or a delta (a name or a folder).
    """
    from dataclasses import asdict

    from secondary_learners.deltas.distance_figure import plot_distances
    from secondary_learners.deltas.distances import (
        critical_layers,
        distance_table,
        layer_distances,
    )
    from secondary_learners.registry.load import load_base

    name, model = _tuned(tuned, base)
    pretrained, _ = load_base(name)
    distances = layer_distances(pretrained, model)
    value: dict[str, Any] = {"base": name, "distances": [asdict(d) for d in distances]}
    text = distance_table(distances)
    if share is not None:
        layers = critical_layers(distances, share)
        value["critical_layers"] = list(layers)
        text += f"\n\ncritical layers, {share:g} of the weights: {', '.join(layers)}"
    if plot is not None:
        plot_distances(distances, plot)
        output.note(f"plot: {plot}")
    output.result(text, value)


def _tuned(tuned: str, base: str | None) -> tuple[str, PreTrainedModel]:
    """The name of the base model, and the fine-tuned one in memory."""
    import torch
    import transformers

    from secondary_learners.registry.load import load_base
    from secondary_learners.registry.load_delta import base_reference, find_delta
    from secondary_learners.tasks.classifier import classifier

    path = Path(tuned)
    if path.is_dir() and not (path / "recipe.toml").is_file():
        if base is None:
            raise click.UsageError("name the --base that this model was fine-tuned from.")
        try:
            model = transformers.AutoModel.from_pretrained(
                path, dtype=torch.float32, use_safetensors=True
            )
        except (OSError, ValueError) as error:
            raise SecondaryLearnersError(f"cannot load the model in {tuned}: {error}") from error
        return base, model
    delta = find_delta(tuned)
    name = base or base_reference(delta.config)
    return name, delta.merge(classifier(load_base(name)[0], len(delta.config.classes)))
