"""The grammar of a search space: plain YAML, the same for defaults and for a study's overrides.

A parameter is either fixed (``batch_size: 16``) or varies:

    learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true, default: 1.0e-3}
    attack_steps:  {low: 1, high: 5, default: 3}              # whole numbers, because both ends are
    regime:        {choices: [none, random, uncertain], default: none}
    epsilon:       {low: 0.002, high: 0.02, default: 0.01, when: {regime: [random, uncertain]}}

``when`` makes a parameter conditional: it exists only in trials where the named parameters have
one of the listed values. ``within: [0, 1]`` limits the numbers that are valid at all, ``among`` the
words; overrides keep all three, and the kind of the parameter: a whole number stays one. In place
of a list a group of registered names may stand (`trustsweep.search_spaces.names`). The defaults are
`spaces/common.yaml` (what every method has) and `spaces/<method>.yaml`, or the attribute `space` of
a method from outside of this repository.

``inherits: NAME`` in one of these begins with the parameters of another: of
`spaces/shared/<NAME>.yaml`, or of a method. A parameter that is named again replaces that one, but
for what an override keeps as well.

A method whose `network` is ``among`` networks has the parameters of these, too, each where one of
its networks is chosen: those of `spaces/networks/<network>.yaml`, or the attribute `space` of a
network from outside of this repository.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Any, Protocol, TypeGuard

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.registry import nearest
from trustsweep.search_spaces.names import group
from trustsweep.trainables.registry import METHODS, NETWORKS

Value = bool | int | float | str
COMMON = "common"
#: The parameter that names the method a trial trains.
METHOD = "method"
#: The parameter that names the network that a method's trial trains.
NETWORK = "network"
#: The key of a space that names the one whose parameters it begins with.
INHERITS = "inherits"
_SPACES = resources.files("trustsweep.search_spaces") / "spaces"
_SHARED = "shared"
_NETWORKS = "networks"
#: Combinations that a grid may have: each is kept in memory.
LARGEST_GRID = 50_000


class Suggester(Protocol):
    """The part of `optuna.Trial` that a space uses."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None, log: bool
    ) -> float: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int: ...
    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...


class ValueKind(StrEnum):
    """What the values of a parameter are."""

    FLAG = "true or false"
    WHOLE = "a whole number"
    NUMBER = "a finite number"
    WORD = "a word"

    @classmethod
    def of(cls, parameter: Parameter) -> ValueKind:
        """The kind of a parameter as it ships; whole only where all of its values are."""
        values = parameter.values
        if all(isinstance(value, bool) for value in values):
            return cls.FLAG
        if any(isinstance(value, str) for value in values):
            return cls.WORD
        return cls.WHOLE if all(isinstance(value, int) for value in values) else cls.NUMBER

    def fits(self, value: Any) -> bool:
        """Whether a value is of this kind; a whole number is a number too."""
        match self:
            case ValueKind.FLAG:
                return isinstance(value, bool)
            case ValueKind.WORD:
                return isinstance(value, str)
            case ValueKind.WHOLE:
                return isinstance(value, int) and not isinstance(value, bool)
        return _is_number(value) and math.isfinite(value)


class Parameter(BaseModel):
    """One parameter: fixed (`value`), categorical (`choices`) or numeric (`low`, `high`)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    value: Value | None = None
    choices: list[Value] | None = None
    low: int | float | None = None
    high: int | float | None = None
    step: int | float | None = None
    log: bool = False
    default: Value | None = None
    when: dict[str, list[Value]] = {}
    within: list[int | float] | None = None
    among: list[Value] | None = None

    @model_validator(mode="before")
    @classmethod
    def _fixed(cls, raw: Any) -> Any:
        raw = dict(raw) if isinstance(raw, Mapping) else {"value": raw}
        for key in ("choices", "among"):
            if isinstance(raw.get(key), str):
                raw[key] = _names(raw[key])
        if isinstance(raw.get("when"), Mapping):
            raw["when"] = {
                name: _names(allowed) if isinstance(allowed, str) else allowed
                for name, allowed in raw["when"].items()
            }
        return raw

    @model_validator(mode="after")
    def _consistent(self) -> Parameter:
        numeric = self.low is not None and self.high is not None
        if (self.value is not None) + (self.choices is not None) + numeric != 1:
            raise ValueError("give a fixed value, or `choices`, or both `low` and `high`")
        if numeric:
            assert self.low is not None
            assert self.high is not None
            if self.low > self.high:
                raise ValueError(f"low {self.low} is above high {self.high}")
            if self.low == self.high:
                raise ValueError(f"low and high are both {self.low}: give that value alone")
            if self.log and (self.low <= 0 or self.step is not None):
                raise ValueError("`log` needs low > 0 and no step")
            if self.step is not None and self.step > self.high - self.low:
                raise ValueError(
                    f"step {self.step} leads from low {self.low} beyond high {self.high}"
                )
        elif self.log or self.step is not None:
            raise ValueError("`log` and `step` belong to `low` and `high`")
        if self.choices is not None and not self.choices:
            raise ValueError("`choices` is empty")
        if (twice := repeated(self.choices or ())) is not None:
            raise ValueError(f"{twice!r} is listed twice among the choices")
        for name, allowed in self.when.items():
            if not allowed:
                raise ValueError(f"`when` lists no value of {name}, so that it never applies")
        if self.default is not None and not self.contains(self.default):
            raise ValueError(f"default {self.default!r} is outside the space")
        if self.within is not None:
            if len(self.within) != 2 or not self.within[0] <= self.within[1]:
                raise ValueError(f"`within` is a lowest and a highest number, not {self.within}")
            lowest, highest = self.within
            for value in self.values:
                if _is_number(value) and not lowest <= float(value) <= highest:
                    raise ValueError(f"{value} is outside [{lowest}, {highest}]")
        return self

    @property
    def values(self) -> list[Value]:
        """Every value that is written out: fixed, choices, ends and default."""
        given = (self.value, *(self.choices or ()), self.low, self.high, self.default)
        return [value for value in given if value is not None]

    def as_kind(self, kind: ValueKind) -> Parameter:
        """The same with its values as a kind has them: 0 for a number is 0.0.

        One number has one spelling, and so one trial. Raises ValueError for values of another kind.
        """
        for value in (*self.values, *([] if self.step is None else [self.step])):
            if not kind.fits(value):
                spelt = " (YAML reads off and no as false: quote it)" if value is False else ""
                raise ValueError(f"{value!r} is not {kind}{spelt}")
            if self.among is not None and value not in self.among:
                known = [str(word) for word in self.among]
                raise ValueError(
                    f"{value!r} is not possible here{nearest(str(value), known)} "
                    f"Choose among: {', '.join(known)}"
                )
        if self.step is not None and self.step <= 0:
            raise ValueError(f"step {self.step} is not above 0")
        if kind is not ValueKind.NUMBER:
            return self
        given = self.model_dump(exclude_unset=True)
        spelt_alike: dict[str, Any] = {
            key: float(given[key])
            for key in ("value", "low", "high", "step", "default")
            if given.get(key) is not None
        }
        if self.choices is not None:
            spelt_alike["choices"] = [float(value) for value in self.choices]
        return Parameter.model_validate({**given, **spelt_alike})

    def contains(self, value: Value) -> bool:
        """Whether a trial may have this value."""
        if self.choices is not None:
            return value in self.choices
        if self.low is not None and self.high is not None:
            return _is_number(value) and self.low <= float(value) <= self.high
        return value == self.value

    def applies(self, config: Mapping[str, Value]) -> bool:
        """Whether the parameter exists in a trial with these other values."""
        return all(config.get(name) in allowed for name, allowed in self.when.items())

    def start(self) -> Value:
        """The value of a single run: `default`, else the fixed value, first choice or low end."""
        for candidate in (self.default, self.value, self.low):
            if candidate is not None:
                return candidate
        assert self.choices
        return self.choices[0]

    def suggest(self, name: str, trial: Suggester) -> Value:
        """A value that `trial` suggests under `name`; a fixed value is returned as it is."""
        if self.value is not None:
            return self.value
        if self.choices is not None:
            return trial.suggest_categorical(name, self.choices)
        low, high = self.low, self.high
        if isinstance(low, int) and isinstance(high, int):
            return trial.suggest_int(name, low, high, step=int(self.step or 1), log=self.log)
        assert low is not None
        assert high is not None
        return trial.suggest_float(name, low, high, step=self.step, log=self.log)


class Space:
    """The conditional space of a study: which method, then that method's parameters.

    Parameters of `common.yaml` have one name for all methods, so that a sampler learns them
    across models; a method's own are named ``<method>.<parameter>`` to the sampler.
    """

    def __init__(self, methods: Sequence[str], overrides: Mapping[str, Any]) -> None:
        """Raises `UserError` for an unknown method or parameter, or an impossible one."""
        self.methods = tuple(methods)
        raw = {name: _defaults(name) for name in (COMMON, *methods)}
        for key, override in overrides.items():
            _override(raw, key, override)
        networks = tuple(NETWORKS)
        self.parameters = {
            owner: {
                name: _parameter(owner, name, spec, _kinds(owner, networks)[name])
                for name, spec in specs.items()
            }
            for owner, specs in raw.items()
        }
        for method in self.methods:
            _check_conditions(method, self.of(method))

    def of(self, method: str) -> dict[str, Parameter]:
        """Every parameter of one method, by its plain name."""
        return {**self.parameters[COMMON], **self.parameters[method]}

    def suggest(self, trial: Suggester) -> dict[str, Value]:
        """A trial's config, as an Optuna trial suggests it."""
        method = self.methods[0]
        if len(self.methods) > 1:
            method = str(trial.suggest_categorical(METHOD, list(self.methods)))
        return self._resolve(
            method, lambda name, parameter: parameter.suggest(self._key(method, name), trial)
        )

    def defaults(self, method: str, **given: Value) -> dict[str, Value]:
        """The config of a single run, every parameter at its default but those given."""
        return self._resolve(method, lambda name, parameter: given.get(name, parameter.start()))

    def grid(self) -> list[dict[str, Value]]:
        """Every combination of the space, as the parameters of an Optuna trial.

        Raises `UserError` for a continuous range, and for more than `LARGEST_GRID` combinations.
        """
        walk = _Enumeration()
        combinations: list[dict[str, Value]] = []
        while True:
            if len(combinations) == LARGEST_GRID:
                raise UserError(
                    f"search.sampler: the grid has more than {LARGEST_GRID:,} combinations. Fix "
                    "some parameters, or use another sampler."
                )
            self.suggest(walk)
            combinations.append(dict(walk.params))
            if not walk.advance():
                return combinations

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """The space as YAML-ready values, for the resolved study."""
        return {
            owner: {
                name: p.value if p.value is not None else p.model_dump(exclude_defaults=True)
                for name, p in parameters.items()
            }
            for owner, parameters in self.parameters.items()
        }

    def _key(self, method: str, name: str) -> str:
        return name if name in self.parameters[COMMON] else f"{method}.{name}"

    def _resolve(self, method: str, choose: Any) -> dict[str, Value]:
        config: dict[str, Value] = {METHOD: method}
        pending = self.of(method)
        while pending:
            # A parameter is settled once everything that it depends on is: dependencies first.
            ready = [n for n, p in pending.items() if not set(p.when) & set(pending)]
            for name in ready:
                parameter = pending.pop(name)
                if parameter.applies(config):
                    config[name] = choose(name, parameter)
        return config


class _Enumeration:
    """A `Suggester` that goes through every combination, the last parameter turning fastest."""

    def __init__(self) -> None:
        self.params: dict[str, Value] = {}
        self._digits: list[tuple[int, int]] = []

    def advance(self) -> bool:
        """Go to the next combination; False after the last."""
        self.params = {}
        while self._digits and self._digits[-1][0] + 1 == self._digits[-1][1]:
            self._digits.pop()
        if self._digits:
            index, count = self._digits[-1]
            self._digits[-1] = (index + 1, count)
        return bool(self._digits)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        depth = len(self.params)
        if depth == len(self._digits):
            self._digits.append((0, len(choices)))
        self.params[name] = choices[self._digits[depth][0]]
        return self.params[name]

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        return int(self.suggest_categorical(name, list(range(low, high + 1, step))))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None, log: bool
    ) -> float:
        if step is None:
            raise UserError(
                f"space.{name}: a grid cannot go through a continuous range. Give `step`, "
                "`choices` or one value, or use another sampler."
            )
        count = int((high - low) / step + 1e-9) + 1
        # In decimals, as they were written: 0.1 + 2 * 0.1 is 0.30000000000000004 in binary.
        begin, by = Decimal(str(low)), Decimal(str(step))
        return float(self.suggest_categorical(name, [float(begin + i * by) for i in range(count)]))


def _defaults(owner: str) -> dict[str, Any]:
    """The parameters of `common.yaml` or of a method as they ship, what it inherits first, those of
    its networks last."""
    if owner != COMMON and owner not in METHODS:
        known = list(METHODS)
        raise UserError(
            f"methods: unknown method {owner!r}{nearest(owner, known)} Known: {', '.join(known)}."
        )
    space = _inherited(owner, ())
    return space | _of_networks(owner, space)


def _of_networks(owner: str, space: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of the networks among which a method may choose, each with its condition."""
    choice = space.get(NETWORK)
    offered = choice.get("among", ()) if isinstance(choice, Mapping) else ()
    taken = {*space, *_written(COMMON)}
    parameters: dict[str, Any] = {}
    networks: dict[str, list[str]] = {}
    for network in group(offered) if isinstance(offered, str) else offered:
        for name, spec in _of_network(network).items():
            if name in taken:
                raise UserError(
                    f"space of the network {network}: {name!r} is a parameter of {owner} as well. "
                    "Choose another name."
                )
            if parameters.setdefault(name, spec) != spec:
                raise UserError(
                    f"space of the network {network}: {name!r} is another parameter of "
                    f"{networks[name][0]}. Choose another name, or write it as there."
                )
            networks.setdefault(name, []).append(network)
    return {
        name: {**spec, "when": {NETWORK: networks[name], **spec.get("when", {})}}
        for name, spec in parameters.items()
    }


def _of_network(network: str) -> dict[str, Any]:
    """A network's parameters as they stand in its file, or in its class."""
    space = _shipped(f"{_NETWORKS}/{network}")
    if space is None:
        space = getattr(NETWORKS[network], "space", {})
    if not isinstance(space, Mapping):
        raise UserError(
            f"space of the network {network}: {space!r} is no mapping of parameters as in "
            "search_spaces/spaces/networks."
        )
    return {
        name: spec if isinstance(spec, Mapping) else {"value": spec} for name, spec in space.items()
    }


def _inherited(name: str, heirs: tuple[str, ...]) -> dict[str, Any]:
    """The parameters of a space and of those that it inherits, for `heirs`, which inherit it."""
    space = _written(name)
    parent = space.pop(INHERITS, None)
    if parent is None:
        return space
    shared = sorted(path.name.removesuffix(".yaml") for path in (_SPACES / _SHARED).iterdir())
    known = [*shared, *METHODS]
    if parent not in known:
        raise UserError(
            f"space of {name}: inherits {parent!r}, which is no space{nearest(str(parent), known)} "
            f"Known: {', '.join(known)}."
        )
    # A method may bear the name of a shared space.
    source = f"{_SHARED}/{parent}" if parent in shared else parent
    if source in (*heirs, name):
        raise UserError(f"space of {name}: inherits {parent!r}, which inherits {name!r} itself.")
    result = _inherited(source, (*heirs, name))
    for key, parameter in space.items():
        result[key] = _narrowed(result[key], parameter) if key in result else parameter
    return result


def _written(name: str) -> dict[str, Any]:
    """A space as it stands in its file, or in its method's class."""
    if (shipped := _shipped(name)) is not None:
        return dict(shipped)
    # From outside of this repository.
    space = getattr(METHODS[name], "space", None)
    if not isinstance(space, Mapping):
        raise UserError(
            f"methods: {name} has no space. Give its class an attribute `space`, a mapping of "
            "parameters as in search_spaces/spaces."
        )
    return dict(space)


@cache
def _shipped(owner: str) -> Mapping[str, Any] | None:
    """The space of that name in this repository, if there is one."""
    file = _SPACES / f"{owner}.yaml"
    if not file.is_file():
        return None
    # libyaml's, ten times as fast, where PyYAML was built with it.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    space: Mapping[str, Any] = yaml.load(file.read_text(encoding="utf-8"), Loader=loader) or {}  # noqa: S506
    return space


@cache
def _kinds(owner: str, networks: tuple[str, ...]) -> dict[str, ValueKind]:
    """Of an owner's parameters, as they ship while there are these networks."""
    return {
        name: ValueKind.of(_parameter(owner, name, spec)) for name, spec in _defaults(owner).items()
    }


def _override(raw: dict[str, dict[str, Any]], key: str, override: Any) -> None:
    """Replace a parameter by its plain name, or by ``<method>.<name>`` for one method."""
    owners = [owner for owner, specs in raw.items() if key in specs]
    name = key
    if not owners and "." in key:
        owner, name = key.split(".", 1)
        owners = [owner] if name in raw.get(owner, {}) else []
    if not owners:
        known = [n for specs in raw.values() for n in specs]
        raise UserError(
            f"space.{key}: no method of this study has such a parameter{nearest(key, known)} "
            f"Known: {', '.join(sorted(set(known)))}."
        )
    for owner in owners:
        raw[owner][name] = _narrowed(raw[owner][name], override)


def only_of(others: Iterable[str], key: str, methods: Iterable[str]) -> bool:
    """Whether an override is of a parameter that other methods have, but none of these."""

    def known(owner: str) -> bool:
        name = key.removeprefix(f"{owner}.")
        return name in _defaults(owner)

    return not any(map(known, (COMMON, *methods))) and any(map(known, others))


def _narrowed(base: Any, override: Any) -> dict[str, Any]:
    """A parameter with other values: it keeps its condition and its valid range.

    A default that no longer fits goes.
    """
    kept = base if isinstance(base, Mapping) else {}
    given = override if isinstance(override, Mapping) else {"value": override}
    return {**{key: kept[key] for key in ("when", "within", "among") if key in kept}, **given}


def repeated(values: Iterable[Value]) -> Value | None:
    """The first value that repeats an earlier one; None if all differ."""
    seen: set[Value] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None


def _is_number(value: Value | None) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _names(name: str) -> list[str]:
    try:
        return group(name)
    except UserError as error:
        raise ValueError(str(error).rstrip(".")) from error


def _parameter(owner: str, name: str, spec: Any, kind: ValueKind | None = None) -> Parameter:
    """Raises `UserError` for an impossible one, or one that is not of that kind."""
    try:
        parameter = Parameter.model_validate(spec)
        return parameter if kind is None else parameter.as_kind(kind)
    except ValidationError as error:
        problem = error.errors()[0]
        where = str(problem["loc"][0]) if problem["loc"] else ""
        text = str(problem["msg"]).removeprefix("Value error, ")
        if len(problem["loc"]) > 1:
            text = f"{problem['input']!r} is no single value"
        if problem["type"] == "extra_forbidden":
            text = f"unknown key{nearest(where, list(Parameter.model_fields))}".rstrip(".")
        raise UserError(
            f"space.{name}{'.' + where if where else ''}: {text} (parameter of {owner})."
        ) from error
    except ValueError as error:
        raise UserError(f"space.{name}: {error} (parameter of {owner}).") from error


def _check_conditions(method: str, parameters: Mapping[str, Parameter]) -> None:
    for name, parameter in parameters.items():
        for other in parameter.when:
            if other not in parameters:
                raise UserError(
                    f"space.{name}.when: {method} has no parameter {other!r}"
                    f"{nearest(other, list(parameters))}"
                )
            known = parameters[other].among
            for value in parameter.when[other]:
                if known is not None and value not in known:
                    words = [str(word) for word in known]
                    raise UserError(
                        f"space.{name}.when: {other} is never {value!r}"
                        f"{nearest(str(value), words)} Choose among: {', '.join(words)}."
                    )
    settled: set[str] = set()
    while len(settled) < len(parameters):
        ready = {n for n, p in parameters.items() if set(p.when) <= settled} - settled
        if not ready:
            circular = sorted(set(parameters) - settled)
            raise UserError(f"space: conditions go in a circle: {', '.join(circular)}.")
        settled |= ready
