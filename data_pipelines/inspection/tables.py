"""An inspection as tables for the terminal, at most 100 columns wide where names allow it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from trustsweep.data_pipelines.inspection.findings import GroupCount, Inspection, MaskPart, Stratum

#: More classes than this have a table of their own, a row each.
_CLASS_COLUMNS = 6
#: Rows that are listed of each site list, group, or feature list before the rest is summed up.
_LISTED = 20


def tables(inspection: Inspection) -> Iterator[Table]:
    """In the order in which they are read; what the data do not have has no table."""
    yield _strata(inspection)
    if len(inspection.classes) > _CLASS_COLUMNS or inspection.several:
        yield _classes(inspection)
    if inspection.groups:
        yield _groups(inspection)
    if inspection.modalities:
        yield _modalities(inspection)
    if inspection.features:
        yield _features(inspection)
    if inspection.intensities:
        yield _intensities(inspection)
    if inspection.masks:
        yield _masks(inspection)
    if inspection.mask_parts:
        yield _mask_parts(inspection)
    if inspection.boxes:
        yield _boxes(inspection)


def _strata(inspection: Inspection) -> Table:
    aside = len(inspection.classes) > _CLASS_COLUMNS or inspection.several
    classes = () if aside else inspection.classes
    unknown = bool(classes) and any(stratum.unknown[0] for stratum in inspection.strata)
    heads = ["samples", "patients", *classes, *(["no label"] if unknown else [])]
    table = _table("Samples by split, site and label", ["split", "site"], heads)
    for split in inspection.splits:
        mine = [stratum for stratum in inspection.strata if stratum.split == split.split]
        shown, rest = mine[:_LISTED], mine[_LISTED:]
        rows: list[tuple[str, list[object]]] = [
            (s.site, [s.samples, s.patients, *_by_class([s], len(classes), unknown)]) for s in shown
        ]
        if rest:
            # A patient may be at several sites: their patients do not add up.
            samples = sum(s.samples for s in rest)
            counts = _by_class(rest, len(classes), unknown)
            rows.append((f"{len(rest)} more sites", [samples, "", *counts]))
        if len(mine) > 1:
            counts = _by_class(mine, len(classes), unknown)
            rows.append(("all", [split.samples, split.patients, *counts]))
        for place, (site, cells) in enumerate(rows):
            name = split.split if place == 0 else ""
            table.add_row(
                *_cells([name, site, *cells]),
                style="bold" if site == "all" and place else None,
                end_section=place == len(rows) - 1,
            )
    return table


def _by_class(strata: Sequence[Stratum], classes: int, unknown: bool) -> list[int]:
    counts = [sum(stratum.positive[k] for stratum in strata) for k in range(classes)]
    return counts + ([sum(stratum.unknown[0] for stratum in strata)] if unknown else [])


def _classes(inspection: Inspection) -> Table:
    splits = [split.split for split in inspection.splits]
    heads = (
        [head for split in splits for head in (split, "unknown")] if inspection.several else splits
    )
    table = _table("Samples by class", ["class"], heads)
    for place, name in enumerate(inspection.classes):
        cells: list[object] = [name]
        for split in splits:
            mine = [stratum for stratum in inspection.strata if stratum.split == split]
            cells.append(sum(stratum.positive[place] for stratum in mine))
            if inspection.several:
                cells.append(sum(stratum.unknown[place] for stratum in mine))
        table.add_row(*_cells(cells))
    return table


def _groups(inspection: Inspection) -> Table:
    splits = [split.split for split in inspection.splits]
    table = _table("Groups", ["group", "value"], ["patients", "samples", *splits])
    by_name: dict[str, list[GroupCount]] = defaultdict(list)
    for count in inspection.groups:
        by_name[count.group].append(count)
    for name, counts in by_name.items():
        for place, count in enumerate(counts[:_LISTED]):
            each = [count.splits.get(split, 0) for split in splits]
            cells = [name if place == 0 else "", count.value, count.patients, count.samples, *each]
            table.add_row(*_cells(cells), end_section=place == len(counts) - 1)
        if rest := counts[_LISTED:]:
            samples = Counter[str]()
            for count in rest:
                samples.update(count.splits)
            cells = ["", f"{len(rest)} more", "", samples.total(), *(samples[s] for s in splits)]
            table.add_row(*_cells(cells), end_section=True)
    return table


def _modalities(inspection: Inspection) -> Table:
    splits = [split.split for split in inspection.splits]
    table = _table("Modalities: share of samples that have them", ["modality", "kind"], splits)
    for modality in inspection.modalities:
        shares = [_percent(modality.present[split]) for split in splits]
        table.add_row(*_cells([modality.name, modality.kind, *shares]))
    return table


def _features(inspection: Inspection) -> Table:
    splits = [split.split for split in inspection.splits]
    table = _table(
        "Table and series: values, the share of samples with any, the share of entries observed",
        ["column", "feature", "values"],
        ["mean", "in samples", *splits],
    )
    for feature in inspection.features[:_LISTED]:
        low, high = feature.minimum, feature.maximum
        values = "" if low is None else f"{low:.4g} to {high:.4g} {feature.unit}".rstrip()
        if feature.categories:
            values = ", ".join(f"{name} {n:,}" for name, n in feature.categories.items())
        shares = [_percent(feature.observed[split]) for split in splits]
        mean = "" if feature.mean is None else f"{feature.mean:.4g}"
        cells = [feature.column, feature.name, values, mean]
        table.add_row(*_cells([*cells, _percent(feature.in_samples), *shares]))
    if (rest := len(inspection.features) - _LISTED) > 0:
        table.add_row(*_cells(["", f"{rest} more, in --json"]))
    return table


def _intensities(inspection: Inspection) -> Table:
    table = _table(
        "Intensities on [0, 1]",
        ["channel", "split"],
        ["images", "min", "1 %", "median", "99 %", "max", "mean", "std"],
    )
    for channel in inspection.intensities:
        shares = channel.percentiles
        ends = [channel.minimum, shares["1"], shares["50"], shares["99"], channel.maximum]
        numbers = [f"{value:.3f}" for value in (*ends, channel.mean, channel.std)]
        table.add_row(*_cells([channel.channel, channel.split, channel.images, *numbers]))
    return table


def _masks(inspection: Inspection) -> Table:
    table = _table(
        "Masks",
        ["split"],
        ["masks", "empty", "at the border", "foreground", "foreground where any"],
    )
    for mask in inspection.masks:
        filled = "" if mask.foreground_filled is None else _percent(mask.foreground_filled)
        cells = [mask.split, mask.masks, mask.empty, mask.at_border, _percent(mask.foreground)]
        table.add_row(*_cells([*cells, filled]))
    return table


def _mask_parts(inspection: Inspection) -> Table:
    splits = [split.split for split in inspection.splits]
    heads = [head for split in splits for head in (split, "of pixels")]
    title = "Findings of the masks: masks that hold them, share of all pixels"
    table = _table(title, ["finding"], heads)
    by_name: dict[str, dict[str, MaskPart]] = defaultdict(dict)
    for part in inspection.mask_parts:
        by_name[part.name][part.split] = part
    for name, parts in by_name.items():
        cells: list[object] = [name]
        for split in splits:
            cells += [parts[split].masks, _percent(parts[split].share)]
        table.add_row(*_cells(cells))
    return table


def _boxes(inspection: Inspection) -> Table:
    splits = [split.split for split in inspection.splits]
    table = _table("Boxes", ["class"], ["boxes", "samples", *splits])
    for count in inspection.boxes:
        each = [count.splits.get(split, 0) for split in splits]
        table.add_row(*_cells([count.name, count.boxes, count.samples, *each]))
    return table


def _table(title: str, words: Iterable[str], numbers: Iterable[str]) -> Table:
    table = Table(
        title=Text(title, style="bold", no_wrap=True, overflow="ignore"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1),
        pad_edge=False,
    )
    for head in words:
        table.add_column(Text(head), overflow="fold")
    for head in numbers:
        table.add_column(Text(head), justify="right")
    return table


def _cells(values: Iterable[object]) -> list[Text]:
    """As Text, so that a bracket in a name is no markup."""
    return [Text(f"{value:,}" if isinstance(value, int) else str(value)) for value in values]


def _percent(share: float) -> str:
    """Rounded, but 0 % and 100 % mean just that."""
    text = f"{100 * share:.1f}"
    if (text == "0.0" and share > 0) or (text == "100.0" and share < 1):
        return "< 0.1 %" if share < 0.5 else "> 99.9 %"
    return f"{text} %" if 0 < share < 1 else f"{100 * share:.0f} %"
