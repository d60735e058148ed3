"""Checks a study against its data and metrics before any trial starts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trustsweep.data_pipelines.corruptions import CORRUPTIONS
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.registry import nearest
from trustsweep.data_pipelines.schema import Manifest, Split, TaskName
from trustsweep.distributed.run.folder import evaluation_plan
from trustsweep.distributed.workers import fidelity
from trustsweep.search_spaces.space import METHOD, NETWORK, Parameter, Space, Value
from trustsweep.search_spaces.study import BASELINE, Constraint, Study, parse
from trustsweep.trainables.conditions import SITES
from trustsweep.trainables.metrics.catalog import COSTS, METRICS, all_names, metric_info
from trustsweep.trainables.metrics.names import SHIFT, MetricName
from trustsweep.trainables.metrics.skill import TrivialMetrics, best_trivial, skill
from trustsweep.trainables.registry import ATTACKS, ENSEMBLES, METHODS, TASKS


def check(study: Study, manifest: Manifest) -> None:
    """Raises `UserError` naming the key of the study, or the data set, that is invalid."""
    space, task = study.search_space(), task_of(study, manifest)
    for split in (Split.TRAIN, Split.VAL):
        if not manifest.split_counts.get(split):
            raise UserError(
                f"{study.data}: the {split} split is empty. Prepare the data with other ratios."
            )
    _usable_methods(study, manifest)
    _usable_attack(study)
    if not manifest.image_shape:
        _without_attacks(study, space)
    _within_images(study, manifest)
    _usable_corruptions(study, manifest)
    _usable_balance(space, task)
    _usable_encoder(space, manifest)
    _usable_maps(space)
    fidelity.check(study, space, manifest)
    if study.search.sampler == "grid":
        space.grid()
    scheduler = study.search.scheduler
    if scheduler.policy != "none" and not scheduler.shares:
        raise UserError(
            f"search.scheduler.rungs: {scheduler.policy} stops trials at rungs, and there is none. "
            "Name some, or the policy none."
        )
    if scheduler.settings:
        from trustsweep.distributed.search.stopping import make_policy

        make_policy(scheduler, [])
    _usable_references(study, task)
    _repeatable(study, space)
    _known_metrics(study, study.objectives, "objectives", task)
    _with_directions(study)
    _known_metrics(study, (c.metric for c in study.constraints), "constraints", task)
    _possible_bounds(study.constraints)


def _usable_methods(study: Study, manifest: Manifest) -> None:
    for name in study.methods:
        needs = METHODS.fact(name, "needs")
        if not needs.met(manifest):
            raise UserError(
                f"methods: {name} needs {needs.text}, and {study.data} has none. Choose other "
                "methods or another data set."
            )


def _usable_balance(space: Space, task: TaskName) -> None:
    """Classes of images are weighed in training, those of pixels and labels by a method's loss."""
    if TASKS.fact(task, "classed"):
        return
    for method in space.methods:
        if _weighs(space, method) and not METHODS.fact(method, "weighs_classes"):
            raise UserError(
                f"space.class_balance: {task} has no class of each image, and {method} does not "
                "weigh pixels or labels. Leave it out."
            )


def _weighs(space: Space, method: str) -> bool:
    return bool(set(_listed(space.of(method)["class_balance"])) - {"none"})


def check_classes(study: Study, manifest: Manifest, task: TaskName) -> list[str]:
    """Sentences on the classes, labels or regions of the task that a split lacks.

    Raises `UserError` where they are to be weighed by how often they occur in the train split and
    do not occur.
    """
    from trustsweep.trainables.metrics.trivial import TRIVIAL

    names = TRIVIAL[task].names(manifest)
    lacking = {
        split: [name for name in names if name in manifest.lacking(split)]
        for split in Split
        if manifest.split_counts.get(split)
    }
    notes = []
    if missing := lacking.pop(Split.TRAIN, []):
        space, listed = study.search_space(), ", ".join(missing)
        if any(_weighs(space, method) for method in space.methods):
            raise UserError(
                f"space.class_balance: no train image of {study.data} has {listed}, so there is no "
                "weight for it. Use none, or prepare the data with other ratios or another seed."
            )
        notes.append(f"No train image has {listed}: no model can learn it.")
    for split, missing in lacking.items():
        # What that leaves undefined is refused by `check_defined`.
        if missing:
            notes.append(
                f"No {split} image has {', '.join(missing)}: means over classes leave it out there."
            )
    return notes


def _usable_encoder(space: Space, manifest: Manifest) -> None:
    """Each file that a network may start from, tried on every network of the space at its
    defaults."""
    for method in space.methods:
        for name in filter(None, _listed(space.of(method)["encoder"])):
            file = Path(str(name))
            if not file.is_absolute():
                raise UserError(
                    f"space.encoder: {file} is not absolute. Name it by its whole path: workers "
                    "run in folders of their own."
                )
            if not file.is_file():
                raise UserError(f"space.encoder: {file}: no such file. Name a safetensors file.")
            from trustsweep.trainables.networks import load_encoder

            choice = space.of(method).get(NETWORK)
            for given in [{NETWORK: n} for n in _listed(choice)] if choice else [{}]:
                config = space.defaults(method, encoder=str(file), **given)
                try:
                    load_encoder(METHODS[method](config, manifest).network(), file)
                except UserError as error:
                    raise UserError(f"space.{error}") from error


def _usable_maps(space: Space) -> None:
    """A map that ranks images must be one that the method gives."""
    for method in space.methods:
        parameters = space.of(method)
        measure = parameters["selection_measure"]
        if not all(set(_listed(parameters[k])) & set(v) for k, v in measure.when.items()):
            continue
        offered = METHODS.fact(method, "uncertainties")
        for name in _listed(measure):
            if name not in ("default", *offered):
                raise UserError(
                    f"space.selection_measure: {name} is no uncertainty map of {method}. It gives "
                    f"{', '.join(offered)}; default is the first of them."
                )


def _listed(parameter: Parameter) -> list[Value]:
    """The values of a parameter that is not a range."""
    return [v for v in (*(parameter.choices or ()), parameter.value) if v is not None]


def _usable_attack(study: Study) -> None:
    settings = study.evaluation
    if settings.attack in ENSEMBLES:
        return
    if settings.attack not in ATTACKS:
        known = [*ENSEMBLES, *ATTACKS]
        raise UserError(
            f"evaluation.attack: unknown attack {settings.attack!r}"
            f"{nearest(settings.attack, known)} Known: {', '.join(known)}."
        )
    norms = ATTACKS.fact(settings.attack, "norms")
    if settings.norm not in norms:
        raise UserError(
            f"evaluation.norm: {settings.attack} is not possible under {settings.norm}. Choose "
            f"{' or '.join(norms)}, or another evaluation.attack."
        )
    if ATTACKS.ours(settings.attack):
        return
    from trustsweep.trainables.attacks import make_attack

    try:
        make_attack(
            settings.attack,
            steps=settings.attack_steps,
            restarts=settings.restarts,
            norm=settings.norm,
        )
    except UserError as error:
        raise UserError(f"evaluation.attack: {error}") from error


def _repeatable(study: Study, space: Space) -> None:
    """The second stage trains the front under several seeds, so the space must not vary them."""
    if study.references() and study.seeds == 1:
        raise UserError(
            "baseline: one seed shows no difference. Give seeds: 5, or leave baseline out."
        )
    for method in study.methods:
        if study.seeds > 1 and space.of(method)["seed"].value is None:
            raise UserError(
                "seeds: the space varies the seed itself (space.seed). Fix it there, or leave "
                "seeds out."
            )


def tasks_of(study: Study) -> tuple[TaskName, ...]:
    """The tasks that all methods of a study have: a front compares figures of the same kind."""
    tasks: dict[str, tuple[TaskName, ...]] = {
        name: METHODS.fact(name, "tasks") for name in study.methods
    }
    first, *others = tasks.values()
    common = tuple(task for task in first if all(task in more for more in others))
    if not common:
        listed = ", ".join(f"{name} ({' or '.join(some)})" for name, some in tasks.items())
        raise UserError(f"methods: {listed} have no task in common. Give each a study.")
    return common


def task_of(study: Study, manifest: Manifest) -> TaskName:
    """The first of a study's tasks that the data offer. Raises `UserError` if they offer none."""
    common = tasks_of(study)
    for task in common:
        if task in manifest.tasks:
            return task
    raise UserError(
        f"methods: {study.methods[0]} needs {' or '.join(common)} data, {study.data} offers "
        f"{', '.join(manifest.tasks)}. Choose other methods or another data set."
    )


def _usable_references(study: Study, task: TaskName) -> None:
    """A baseline has to have the same task as the front."""
    for name, config in study.references().items():
        method = str(config[METHOD])
        if task not in (others := METHODS.fact(method, "tasks")):
            key = name if name == BASELINE else f"variants.{name}"
            raise UserError(
                f"{key}: {method} is for {' or '.join(others)}, the study for {task}. Choose "
                "another method."
            )


def measured_names(study: Study, task: TaskName | None = None) -> list[str]:
    """Every metric that a finished trial of the study has; without `task`, may have."""
    tasks = tasks_of(study) if task is None else (task,)
    names = [name for each in tasks for name in all_names(evaluation_plan(study), each)]
    return list(dict.fromkeys([*names, *COSTS]))


def _possible_bounds(constraints: Sequence[Constraint]) -> None:
    """A bound that no model can meet would leave the front empty."""
    kept: dict[str, Constraint] = {}
    for constraint in constraints:
        info = metric_info(constraint.metric)
        best = info.high if constraint.sense == ">=" else info.low
        if constraint.violation(best) > 0:
            raise UserError(
                f"constraints: no model can meet {constraint}, as {constraint.metric} ranges from "
                f"{info.low:g} to {info.high:g}. Give another bound."
            )
        other = kept.setdefault(constraint.metric, constraint)
        if other is not constraint and other.sense == constraint.sense:
            raise UserError(f"constraints: {other} and {constraint}: leave one of them out.")
        if other.violation(constraint.bound) > 0:
            raise UserError(
                f"constraints: no model can meet both {other} and {constraint}. Change one of them."
            )


def _with_directions(study: Study) -> None:
    for name in study.objectives:
        if metric_info(name).direction is None:
            raise UserError(
                f"objectives: {name!r} has no better direction, so it cannot be optimised. Name "
                "another metric (`trustsweep list metrics`)."
            )


def with_objectives(raw: Mapping[str, Any], source: str) -> Study:
    """`parse`, for a study that may leave its objectives to the task.

    They are then the measure of skill and the calibration error of its task: how the first falls as
    the attack grows, and the second on clean images; of corrupted samples where the evaluation has
    no attack, and of clean ones where it has no corruption either. Raises `UserError` as `parse`,
    and for data that cannot be read or offer none of the tasks.
    """
    if "objectives" in raw:
        return parse(raw, source)
    # The rest of the study decides which metrics there are.
    study = parse({**raw, "objectives": ["clean.ece"]}, source)
    data, settings = study.data, study.evaluation
    # The data decide the task.
    task = task_of(study, Manifest.load(data)) if data else tasks_of(study)[0]
    skilled = TASKS.fact(task, "skill")
    error = "ece_region" if task in METRICS["ece_region"].tasks else "ece"
    condition = "corrupted" if settings.corruptions and settings.severities else "clean"
    objectives = [f"{condition}.{skilled}", f"{condition}.{error}"]
    if settings.epsilons[-1] > 0:
        objectives = [f"{skilled}_area", f"clean.{error}"]
    return study.model_copy(update={"objectives": objectives})


def check_defined(study: Study, figures: TrivialMetrics, split: Split) -> None:
    """Raises `UserError` for an objective or constraint that a split cannot have.

    `figures` are the trivial predictors' there: what is undefined for all of them is undefined for
    every model.
    """
    named = [(name, "objectives") for name in study.objectives]
    named += [(c.metric, "constraints") for c in study.constraints]
    for name, key in named:
        if why := _why_undefined(name, figures):
            raise UserError(
                f"{key}: {name!r} does not exist on the {split} split of {study.data}: {why}. "
                "Name another metric, or prepare the data with other ratios or another seed."
            )


def _why_undefined(name: str, figures: TrivialMetrics) -> str:
    parsed = MetricName.parse(name)
    metric = parsed.metric
    shift = parsed.condition is not None and parsed.condition.kind == SHIFT
    if shift or not any(metric in row for row in figures.values()):
        return ""
    _, trivial = best_trivial(figures, metric)
    if math.isnan(trivial):
        return _UNDEFINED.get(metric, "its truth does not allow it")
    if parsed.skill and math.isnan(skill(0.0, trivial, METRICS[metric])):
        return "a predictor that ignores the image is perfect there"
    return ""


#: Why a metric does not exist on a split.
_UNDEFINED = {
    "dice_lesion": "no image there has a lesion, or anything of a class or region",
    "false_alarms": "every image there has a lesion",
    "false_alarm_volume": "every image there has a lesion",
    "auroc": "fewer than two classes occur there",
    "c_index": "no patient there has the event before another's time",
    "c_index_ipcw": "no patient there has the event before another's time",
}


def check_sighted(study: Study, task: TaskName) -> None:
    """Raises `UserError` for objectives that a model which ignores the image can win.

    A search finds whatever its objectives reward. A single trial is exempt: nothing is chosen.
    """
    blind = [name for name in study.objectives if metric_info(name).blind]
    kept = [c for c in study.constraints if MetricName.parse(c.metric).skill]
    if study.search.trials == 1 or not blind or any(c.sense == ">=" and c.bound > 0 for c in kept):
        return
    measure = TASKS.fact(task, "skill")
    wanted = replace(MetricName.parse(blind[0]), metric=measure, skill=True)
    raise UserError(
        f"objectives: a model that ignores the image can reach the best {blind[0]}. Add a "
        f"constraint on a skill, with a bound above 0, such as constraints: [{wanted} >= 0.05]."
    )


def _within_images(study: Study, manifest: Manifest) -> None:
    """An L2 ball that contains every image tells nothing about a model."""
    most, diagonal = study.evaluation.epsilons[-1], math.sqrt(math.prod(manifest.image_shape))
    if study.evaluation.norm == "l2" and most > diagonal:
        raise UserError(
            f"evaluation.epsilons: within an l2 distance of {most:g} lies every image of "
            f"{study.data}: no two are farther apart than {diagonal:.3g}. Give smaller ones."
        )


def _without_attacks(study: Study, space: Space) -> None:
    """Attacks perturb `Batch.image`: without images, every model would look robust."""
    if any(epsilon > 0 for epsilon in study.evaluation.epsilons):
        raise UserError(
            f"evaluation.epsilons: attacks change the image, and {study.data} has none. "
            "Give epsilons: [0]."
        )
    for method in study.methods:
        regime = space.of(method)["regime"]
        if (regime.choices or [regime.start()]) != ["none"]:
            raise UserError(
                f"space.regime: the regimes of {method} attack the image, and {study.data} "
                "has none. Give regime: none."
            )
    for name, config in study.references().items():
        if config["regime"] != "none":
            raise UserError(
                f"{name}: regime {config['regime']} attacks the image, and {study.data} has none. "
                "Give it regime: none."
            )


def _usable_corruptions(study: Study, manifest: Manifest) -> None:
    """A corruption that changes nothing would look like robustness."""
    for name in study.evaluation.corruptions:
        try:
            needs = CORRUPTIONS.fact(name, "needs")
        except UserError as error:
            raise UserError(f"evaluation.corruptions: {error}") from error
        if not needs.met(manifest):
            usable = [c for c in CORRUPTIONS if CORRUPTIONS.fact(c, "needs").met(manifest)]
            raise UserError(
                f"evaluation.corruptions: {name!r} needs {needs.text}, and {study.data} has "
                f"none: it would change nothing. Choose among: {', '.join(usable)}."
            )


def _known_metrics(
    study: Study, names: Iterable[str], key: str, task: TaskName | None = None
) -> None:
    """A metric may exist but not be measured, as at an ε that the study does not list."""
    tasks = tasks_of(study) if task is None else (task,)
    measured = set(measured_names(study, task))
    for name in names:
        try:
            info = metric_info(name)
        except UserError as error:
            raise UserError(f"{key}: {error}") from error
        if not {*tasks} & {*info.tasks}:
            theirs, ours = ", ".join(info.tasks), " or ".join(tasks)
            raise UserError(f"{key}: {name!r} is a metric of {theirs}, not of {ours}.")
        condition = MetricName.parse(name).condition
        if condition is not None and condition.kind == SITES:
            raise UserError(
                f"{key}: a search by {name!r} would leave no site unseen. The front's models are "
                "evaluated there at the end; name another metric."
            )
        if name not in measured:
            raise UserError(
                f"{key}: this study's evaluation does not measure {name!r}. Add its ε or its "
                "corruption under `evaluation`, or name another metric (`trustsweep list metrics`)."
            )
