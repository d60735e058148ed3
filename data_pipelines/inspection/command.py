"""What `trustsweep inspect` does: the tables, the warnings, and two pictures."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.text import Text

from trustsweep.data_pipelines.corruptions.suites import suite
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.inspection.corruption_sheet import corruption_sheet, default_suite
from trustsweep.data_pipelines.inspection.numbers import inspect
from trustsweep.data_pipelines.inspection.sheets import contact_sheet
from trustsweep.data_pipelines.inspection.tables import tables
from trustsweep.data_pipelines.schema import Manifest
from trustsweep.data_pipelines.storage import Folder


def run(
    location: str,
    out: Path | None,
    suite_name: str | None,
    json_file: Path | None,
    console: Console,
) -> None:
    """Print what `inspect` finds and write the pictures.

    Args:
        location: A prepared data set.
        out: Folder of the pictures; None for `<name>-inspect` beside a local data set, and in the
            current folder for a remote one.
        suite_name: The corruptions to show; None for those that fit the data.
        json_file: Written with every number, if given.
        console: Where to print.

    Raises:
        UserError: if there is no data set or a file of it is missing or damaged, for an unknown
            suite, and for a path to write to within the data set.
    """
    folder = Folder(location)
    manifest = Manifest.load(folder)
    chosen = suite_name or default_suite(manifest)
    suite(chosen)  # an unknown one is refused before anything is read
    target = out or _beside(folder)
    for path in (target, json_file):
        _refuse_within(folder, path)
    with console.status("Inspecting"):
        inspection = inspect(folder)
    shape = " x ".join(str(side) for side in inspection.image_shape)
    tasks = ", ".join(inspection.tasks)
    title = (
        f"{inspection.name}: {tasks}; images {shape}" if shape else f"{inspection.name}: {tasks}"
    )
    console.print(Text(title, style="bold"))
    console.print(Text(f"licence: {inspection.licence}\n"))
    for table in tables(inspection):
        console.print(table)
    for warning in inspection.warnings:
        console.print(Text(f"warning: {warning}", style="yellow"))
    with console.status("Drawing"):
        written = [
            contact_sheet(folder, target / "contact-sheet.png"),
            corruption_sheet(folder, target / f"corruptions-{chosen}.png", suite_name=chosen),
        ]
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(inspection.to_json() + "\n", encoding="utf-8")
        written.append(json_file)
    for path in written:
        console.print(Text(str(path)), soft_wrap=True)


def _beside(folder: Folder) -> Path:
    """A data set is written and replaced as a whole, so that nothing else belongs into it."""
    name = f"{folder.name}-inspect"
    return Path(name) if folder.remote else folder.local.resolve().parent / name


def _refuse_within(folder: Folder, path: Path | None) -> None:
    if path is None or folder.remote:
        return
    if folder.local.resolve() in (path.resolve(), *path.resolve().parents):
        raise UserError(
            f"{path}: within the data set, which is written and replaced as a whole. Choose a path "
            "beside it."
        )
