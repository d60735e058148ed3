"""The study file: what a sweep trains, varies and optimises, and the resources it may use.

Unknown keys are refused with the nearest known one named; nothing here imports torch or Ray, so
that a mistake in a study is reported at once.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Hashable, Mapping, Sequence
from importlib import resources
from itertools import count, islice
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from trustsweep.data_pipelines.corruptions import suites
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.registry import nearest
from trustsweep.data_pipelines.schema import Manifest
from trustsweep.search_spaces.policies import POLICIES
from trustsweep.search_spaces.space import METHOD, Space, Value, only_of, repeated
from trustsweep.trainables.conditions import ConditionName
from trustsweep.trainables.registry import CONDITIONS, METHODS

#: The parameter that every draw of a training depends on.
SEED = "seed"
#: What the baseline is called beside the study's variants of it.
BASELINE = "baseline"
_TYPE_NAMES = ("constrained-", "literal[")
_SHIPPED = resources.files("trustsweep.search_spaces") / "studies"


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as people write it, and as YAML 1.2 has it.

    PyYAML reads ``1e-3`` (no dot) as text, and of two equal keys keeps the last without a word.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[Hashable, int] = {}
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            line = key_node.start_mark.line + 1
            if key in lines:
                raise yaml.YAMLError(f"key {key!r} stands twice, in lines {lines[key]} and {line}")
            if key is not None:
                lines[key] = line
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def _read_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader


class _Section(BaseModel):
    # Strict: true is no number of trials.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Share = Annotated[float, Field(gt=0, le=1)]


#: Keys of a scheduler that one policy alone reads.
_OF_POLICY = {"halving": ("brackets", "ranking"), "forecast": ("risk", "learn_from")}


class Scheduler(_Section):
    """When trials that cannot reach the front are stopped. A study may write the policy alone.

    `policy` is "forecast" (stop what by its forecast has next to no chance of reaching the front),
    "halving" (ASHA: keep the best of each rung) or "none". `rungs` are the shares of a trial's own
    length at which it is compared; left out, they are `first` and its multiples by `factor`: a
    quarter and a half. Before a quarter, slow starters look hopeless and calibration foretells the
    opposite of its end, and each rung costs an evaluation. `factor`, `brackets` and `ranking`
    belong to halving; `risk`, the chance of reaching the front below which a trial is stopped, and
    `learn_from`, trials that must run to the end before any is stopped, belong to forecast. A
    policy that a plug-in registers has its own under `settings`.
    """

    policy: str = "forecast"
    rungs: list[Annotated[float, Field(gt=0, lt=1)]] | None = None
    first: Annotated[float, Field(gt=0, lt=1)] = 0.25
    factor: Annotated[float, Field(gt=1)] = 2.0
    brackets: Annotated[int, Field(ge=1)] = 1
    ranking: Literal["scalarised", "hypervolume", "epsilon-net"] = "scalarised"
    risk: Annotated[float, Field(gt=0, lt=1)] = 0.15
    learn_from: Annotated[int, Field(ge=3)] = 8
    settings: dict[str, Any] = {}

    @field_validator("policy")
    @classmethod
    def _known_policy(cls, name: str) -> str:
        if name not in POLICIES:
            close, known = nearest(name, list(POLICIES)), ", ".join(POLICIES)
            raise ValueError(f"unknown policy {name!r}{close} Known: {known}")
        return name

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, raw: Any) -> Any:
        return {"policy": raw} if isinstance(raw, str) else raw

    @model_validator(mode="after")
    def _of_the_policy(self) -> Self:
        """What another policy alone reads would be without effect."""
        for policy, names in _OF_POLICY.items():
            for name in names:
                field = type(self).model_fields[name]
                if self.policy != policy and getattr(self, name) != field.default:
                    raise ValueError(f"{name} belongs to the policy {policy}, not to {self.policy}")
        return self

    @property
    def shares(self) -> list[float]:
        """The rungs as shares of a trial's length, ascending, each below 1."""
        if self.rungs is not None:
            return sorted(set(self.rungs))
        shares = []
        share = self.first
        while share < 1 - 1e-9:
            shares.append(share)
            share *= self.factor
        return shares

    def rung_epochs(self, epochs: int) -> dict[int, int]:
        """Epoch to number of the rung that stands at its end, for a trial of so many epochs.

        The last epoch is never a rung. Where rungs fall on one epoch, the highest stands.
        """
        ends = {math.ceil(share * epochs - 1e-9): i for i, share in enumerate(self.shares)}
        return {epoch: rung for epoch, rung in ends.items() if epoch < epochs}


class Fidelity(_Section):
    """What is cheaper at the start of a training than at its end.

    Each number is a share of the full amount on the way to the first rung and in the evaluation
    there; it grows by equal factors from rung to rung, and after a trial's last rung is 1. `data`
    is the part of an epoch's batches, `image_size` of the pixels along each axis (to the nearest
    multiple of 16), `parameters` of whole numbers of the space (``{attack_steps: 0.34}``).
    `validation` (part of the validation split) and `evaluation_steps` (of
    `evaluation.attack_steps`) are for evaluation at the rungs; the last evaluation is always full.
    """

    data: Share = 1.0
    image_size: Share = 1.0
    parameters: dict[str, Share] = {}
    validation: Share = 0.5
    evaluation_steps: Share = 0.3

    @staticmethod
    def share(start: float, rung: int, rungs: int) -> float:
        """The share at (or on the way to) rung number `rung` of `rungs`; 1 after the last."""
        return 1.0 if rung >= rungs else float(start ** (1 - rung / rungs))


class Search(_Section):
    """How trials are chosen and stopped. `seed` makes the sampler's choices repeatable.

    `warm_start` names an earlier run; what it found teaches the sampler before the first trial.
    """

    trials: Annotated[int, Field(ge=1)] = 12
    sampler: Literal["tpe", "random", "nsga2", "nsga3", "gp", "qmc", "grid"] = "tpe"
    scheduler: Scheduler = Scheduler()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    warm_start: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _grids_are_whole(cls, raw: Any) -> Any:
        """Who lists every combination wants each of them."""
        if isinstance(raw, Mapping) and raw.get("sampler") == "grid" and "scheduler" not in raw:
            return {**raw, "scheduler": "none"}
        return raw


class EvaluationSettings(_Section):
    """How every model is evaluated. The same for all trials of a study.

    `epsilons` are attack budgets on the [0, 1] pixel scale and include 0 (0 alone: no attacks, as
    for data without images); `corruptions` are evaluated at each of `severities` (1 to 5), with
    the parameters that `suite` gives them.

    `conditions` are further ones, registered by plug-ins, each by name ("blurred@2").

    `attack` is run on every trial: "fast", an ensemble of few gradients, or a single attack by name
    for comparison, with `attack_steps` and `restarts`. `final` is run on the models of the front
    and the test split: "full", an ensemble of many attacks, beside `attack`; "fast", `attack`
    alone, whichever it is. `norm` is how ε is measured: "linf", the most that a pixel changes, or
    "l2", the length of an image's change, for which `epsilons` have to be given.
    """

    # First, as what the budgets may be depends on it.
    norm: Literal["linf", "l2"] = "linf"
    epsilons: list[float] = [0.0, 0.005, 0.01, 0.02]
    attack: str = "fast"
    attack_steps: Annotated[int, Field(ge=1)] = 7
    restarts: Annotated[int, Field(ge=1)] = 1
    final: Literal["fast", "full"] = "full"
    suite: str = suites.DEFAULT_SUITE
    corruptions: list[str] = ["gaussian-noise", "gaussian-blur", "contrast-down"]
    severities: list[Annotated[int, Field(ge=1, le=5)]] = [1, 3, 5]
    conditions: list[str] = []
    batch_size: Annotated[int, Field(ge=1)] = 32

    @field_validator("suite")
    @classmethod
    def _known_suite(cls, name: str) -> str:
        try:
            suites.suite(name)
        except UserError as error:
            raise ValueError(str(error).rstrip(".")) from error
        return name

    @field_validator("conditions")
    @classmethod
    def _known_conditions(cls, names: list[str]) -> list[str]:
        for name in names:
            known = ConditionName.parse(name)
            if known.kind not in CONDITIONS:
                raise ValueError(
                    f"unknown condition {name!r}{nearest(known.kind, list(CONDITIONS))} Known: "
                    f"{', '.join(CONDITIONS)}"
                )
            condition = CONDITIONS[known.kind]()
            if condition.given_by:
                raise ValueError(f"{name!r} is not listed here: {condition.given_by}")
            if bool(known.detail) != condition.several or condition.describe(known.detail) is None:
                raise ValueError(f"{name!r} is no condition as {known.kind} names them")
        return list(dict.fromkeys(names))

    @field_validator("epsilons")
    @classmethod
    def _in_range(cls, values: list[float], info: ValidationInfo) -> list[float]:
        for value in values:
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"ε = {value} is no length: 0 or above, and finite")
            if value > 1 and info.data.get("norm") == "linf":
                raise ValueError(f"ε = {value} is outside [0, 1], the pixel scale of linf")
        if 0.0 not in values:
            raise ValueError("0 (the clean images) must be one of the budgets")
        # As they stand in the names of metrics.
        if (twice := repeated(f"{value:g}" for value in values)) is not None:
            raise ValueError(f"ε = {twice} is listed twice (six digits count)")
        return sorted(values)

    @field_validator("corruptions", "severities")
    @classmethod
    def _once(cls, values: list[Any]) -> list[Any]:
        if (twice := repeated(values)) is not None:
            raise ValueError(f"{twice!r} is listed twice")
        return values

    @model_validator(mode="after")
    def _of_corruptions(self) -> Self:
        if self.corruptions and not self.severities:
            raise ValueError("severities: none is listed. Name some, or give corruptions: []")
        return self

    @model_validator(mode="after")
    def _of_the_norm(self) -> Self:
        if self.norm == "l2" and "epsilons" not in self.model_fields_set:
            raise ValueError(
                "epsilons: those for linf are next to nothing for norm l2. Give its own: a change "
                "by 0.01 of each of 64 x 64 pixels has a length of 0.64"
            )
        return self


class Resources(_Section):
    """What the sweep may use.

    `slots` is how many trials run at once; "auto" fills the cluster. `data` is how samples reach
    the workers: read once into the object store (materialised), kept on each worker's GPU
    (resident), or read and corrupted anew by other CPUs while they train (streamed, for data that
    no memory holds); "auto" chooses by size.
    """

    slots: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    workers: Annotated[int, Field(ge=1)] = 1
    cpus_per_worker: Annotated[float, Field(gt=0)] = 1.0
    gpus_per_worker: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    data: Literal["auto", "materialised", "resident", "streamed"] = "auto"


class Constraint(_Section):
    """A bound that a model must keep to stand on the front, such as ``clean.dice >= 0.5``."""

    metric: str
    sense: Literal[">=", "<="]
    bound: float

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, raw: Any) -> Any:
        if not isinstance(raw, str):
            return raw
        parts = raw.split()
        if len(parts) != 3 or parts[1] not in (">=", "<="):
            raise ValueError(f"write a constraint as 'metric >= number', not {raw!r}")
        try:
            bound = float(parts[2])
        except ValueError as error:
            raise ValueError(f"{parts[2]!r} is no number") from error
        return {"metric": parts[0], "sense": parts[1], "bound": bound}

    @field_validator("bound")
    @classmethod
    def _finite(cls, bound: float) -> float:
        if not math.isfinite(bound):
            raise ValueError(f"{bound} bounds nothing: give a finite number")
        return bound

    def violation(self, value: float) -> float:
        """How far `value` is on the wrong side; at most 0 when the bound is kept."""
        return self.bound - value if self.sense == ">=" else value - self.bound

    def __str__(self) -> str:
        # Every digit, as a study that was written out must read back the same.
        return f"{self.metric} {self.sense} {str(self.bound).removesuffix('.0')}"


#: In place of a list of methods: every one that fits the data.
FITTING = "fitting"


class Study(_Section):
    """One sweep, resolved. See the fields' own types for their meaning.

    With `seeds` above 1, the models of the front are trained again under as many seeds that no
    trial of the search had (`repeat_seeds`), and with them the `baseline` that they are tested
    against: a
    method and the parameters that differ from its defaults. `variants`, by name, are the
    baseline but for the parameters that they list, as in an ablation, and are tested as well.
    """

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    methods: Annotated[list[str], Field(min_length=1)]
    data: str | None = None
    space: dict[str, Any] = {}
    objectives: Annotated[list[str], Field(min_length=1)]
    constraints: list[Constraint] = []
    search: Search = Search()
    fidelity: Fidelity = Fidelity()
    seeds: Annotated[int, Field(ge=1)] = 1
    baseline: dict[str, Value] | None = None
    variants: dict[Annotated[str, Field(pattern=r"^[\w.-]+$")], dict[str, Value]] = {}
    evaluation: EvaluationSettings = EvaluationSettings()
    resources: Resources = Resources()

    @field_validator("methods", "objectives")
    @classmethod
    def _unique(cls, values: list[str]) -> list[str]:
        if (twice := repeated(values)) is not None:
            raise ValueError(f"{twice!r} is listed twice")
        return values

    def search_space(self) -> Space:
        """The conditional space of this study. Raises `UserError` where it is impossible."""
        return Space(self.methods, self.space)

    def repeat_seeds(self) -> list[int]:
        """The seeds under which the front and its references are trained again; none for one seed.

        The smallest from 0 that the search does not use: the seed under which a model was chosen
        flatters it, and so must not be used to evaluate it. Raises `UserError` for an impossible
        space.
        """
        if self.seeds == 1:
            return []
        space = self.search_space()
        searched = {space.of(method)[SEED].value for method in self.methods}
        unused = (seed for seed in count() if seed not in searched)
        return list(islice(unused, self.seeds))

    def references(self) -> dict[str, dict[str, Value]]:
        """The configs that are trained beside the front's, by name: the baseline and its variants.

        The baseline is the space's defaults but for what it names; empty where there is none.
        Raises `UserError` for a parameter that its method does not have, that stands in the way of
        another or is without effect, for variants of nothing, and for two that are the same.
        """
        if self.baseline is None:
            if self.variants:
                raise UserError("variants: they are of the baseline; name one, or leave them out.")
            return {}
        if BASELINE in self.variants:
            raise UserError(f"variants: {BASELINE!r} is the baseline's own name; choose another.")
        named = {BASELINE: self.baseline}
        named |= {key: {**self.baseline, **change} for key, change in self.variants.items()}
        configs: dict[str, dict[str, Value]] = {}
        for key, parameters in named.items():
            where = key if key == BASELINE else f"variants.{key}"
            config = self._reference(where, parameters)
            own = self.baseline if key == BASELINE else self.variants[key]
            if idle := [name for name in own if name not in config]:
                raise UserError(
                    f"{where}: {idle[0]} has no effect there, as the parameters that it depends on "
                    "have other values. Leave it out, or set them as well."
                )
            if same := [other for other, taken in configs.items() if taken == config]:
                raise UserError(
                    f"{where}: the same configuration as {same[0]}. Change it, or leave it out."
                )
            configs[key] = config
        return configs

    def _reference(self, where: str, parameters: Mapping[str, Value]) -> dict[str, Value]:
        named = dict(parameters)
        method = str(named.pop(METHOD, self.methods[0]))
        try:
            known = Space([method], {}).of(method)
            shared = {key: value for key, value in self.space.items() if key in known}
            return Space([method], {**shared, **named}).defaults(method)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error

    def to_yaml(self) -> str:
        """The study with every default written out; reading it back gives the same study."""
        raw = self.model_dump(mode="json")
        raw["constraints"] = [str(c) for c in self.constraints]
        return yaml.safe_dump(raw, sort_keys=False, allow_unicode=True)


def load(source: str | Path, overrides: Sequence[str] = ()) -> Study:
    """Read a study file and apply ``key=value`` overrides (dotted keys, YAML values).

    `source` is a path, or the name of a study that ships with trustsweep.
    Raises `UserError` for a missing file, one that is not UTF-8 or no YAML (in which a key stands
    twice, say), and unknown or impossible keys.
    """
    return parse(apply_overrides(read(source), overrides), str(source))


def read(source: str | Path) -> dict[str, Any]:
    """A study file as it stands, keys and values unchecked. Raises `UserError` as `load`."""
    path = Path(source)
    if not path.is_file():
        names = shipped_studies()
        if str(source) not in names:
            raise UserError(
                f"{source}: no such study file{nearest(path.stem, names)} "
                f"Shipped studies: {', '.join(names)}."
            )
        text = (_SHIPPED / f"{source}.yaml").read_text(encoding="utf-8")
    else:
        text = _read_text(path)
    try:
        raw = _read_yaml(text)
    except yaml.YAMLError as error:
        raise UserError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise UserError(f"{source}: a study is a mapping of keys, such as `name` and `methods`.")
    return raw


def _read_text(path: Path) -> str:
    """Of a study file. Raises `UserError` for one that is not UTF-8."""
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        seems = "UTF-16" if wide else "an older encoding, such as Windows-1252"
        raise UserError(f"{path}: seems to be {seems}. Save it as UTF-8.") from error


def parse(raw: Mapping[str, Any], source: str) -> Study:
    """Validate a study and its space; ``methods: fitting`` becomes every method that fits the data,
    and parameters under `space` that only others have are left out.

    Raises `UserError` naming the key and what to do.
    """
    if raw.get("methods") == FITTING:
        fitting = fitting_methods(raw, source)
        raw = {**raw, "methods": fitting}
        if isinstance(given := raw.get("space"), Mapping):
            others = [name for name in METHODS if name not in fitting]
            raw["space"] = {k: v for k, v in given.items() if not only_of(others, k, fitting)}
    try:
        study = Study.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{source}: {_explain(error)}") from error
    study.search_space()
    return study


def fitting_methods(raw: Mapping[str, Any], source: str) -> list[str]:
    """Every registered method that can be asked what a study's objectives measure, of its data.

    Raises `UserError` for a study without data or objectives, for objectives of no task or of
    several that the data offer, and where no method fits.
    """
    from trustsweep.trainables.metrics.catalog import metric_info

    if not raw.get("data"):
        raise UserError(
            f"{source}: methods: fitting needs the data that they are to fit. Name a prepared "
            "folder with --data, or under `data`."
        )
    manifest = Manifest.load(raw["data"])
    try:
        bounds = [Constraint.model_validate(c).metric for c in raw.get("constraints", ())]
        listed = raw.get("objectives", ())
        # What is no list, the study itself refuses in better words.
        names = [*([listed] if isinstance(listed, str) else listed), *bounds]
    except (ValidationError, TypeError) as error:
        raise UserError(f"{source}: constraints: not of the form clean.dice >= 0.5.") from error
    tasks = [t for t in manifest.tasks if all(t in metric_info(n).tasks for n in names)]
    if len(tasks) != 1 or not names:
        offered = ", ".join(manifest.tasks)
        found = " and ".join(tasks) or "none of these"
        raise UserError(
            f"{source}: methods: fitting needs objectives of one task. {raw['data']} offers "
            f"{offered}; the objectives measure {found}. Name others, or list the methods."
        )
    fitting = [
        name
        for name in METHODS
        if [t for t in METHODS.fact(name, "tasks") if t in manifest.tasks][:1] == tasks
        and METHODS.fact(name, "needs").met(manifest)
    ]
    if not fitting:
        raise UserError(
            f"{source}: methods: no registered method fits {raw['data']} for {tasks[0]}."
        )
    return fitting


def apply_overrides(raw: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of `raw` with ``a.b=value`` set; parameters under `space` may hold dots themselves.

    Raises `UserError` for a key that is set twice.
    """
    result: dict[str, Any] = {**raw}
    given: dict[str, str] = {}
    for item in overrides:
        key, value = assignment(item, example="search.trials=24")
        head, _, rest = key.partition(".")
        # Whichever came last would take the other's place without a word.
        clash = [known for known in given if known == key or known.startswith(f"{key}.")]
        if rest and head in given and isinstance(result[head], Mapping) and rest in result[head]:
            clash.append(head)
        if clash:
            raise UserError(
                f"--set {item}: {clash[0]} is set already, by {given[clash[0]]}. Leave one out."
            )
        given[key] = item
        if not rest:
            result[head] = value
            continue
        section = result.get(head) or {}
        if not isinstance(section, Mapping):
            raise UserError(f"--set {item}: {head!r} holds no keys of its own.")
        result[head] = {**section, rest: value}
    return result


def assignment(item: str, example: str) -> tuple[str, Any]:
    """A ``--set key=value`` of the command line, the value read as YAML. Raises `UserError`."""
    key, sign, text = item.partition("=")
    if not sign or not key:
        raise UserError(f"--set {item}: write key=value, such as {example}.")
    try:
        return key, _read_yaml(text)
    except yaml.YAMLError as error:
        why = " ".join(str(error).split())
        raise UserError(f"--set {item}: the value is not valid YAML: {why}") from error


def shipped_studies() -> list[str]:
    """The names of the studies that ship with trustsweep."""
    return sorted(path.name.removesuffix(".yaml") for path in _SHIPPED.iterdir())


def _explain(error: ValidationError) -> str:
    """The first problem as one line: the key, what is wrong, the nearest known key."""
    problem = error.errors()[0]
    # Of a union, pydantic names the type that it tried as well ("constrained-int").
    parts = [str(part) for part in problem["loc"]]
    key = ".".join(part for part in parts if not part.startswith(_TYPE_NAMES))
    if problem["type"] == "extra_forbidden":
        section = _section(problem["loc"])
        known = list(section.model_fields)
        guess = nearest(str(problem["loc"][-1]), known)
        return f"unknown key {key!r}{guess} Known here: {', '.join(known)}."
    if problem["type"] == "missing":
        return f"key {key!r} is missing."
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{key}: {message[:1].lower() + message[1:]} (got {problem['input']!r})."


def _section(location: tuple[int | str, ...]) -> type[BaseModel]:
    model: type[BaseModel] = Study
    for part in location[:-1]:
        field = model.model_fields.get(str(part))
        if field is not None and isinstance(field.annotation, type):
            model = field.annotation
    return model
