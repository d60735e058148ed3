"""A section of the page: a folder of `trustsweep.distributed.report.sections`.

    sections/<name>/__init__.py     what is worked out of a run, as a `Section`
                    page.html.j2    its part of the page; `data` is what was worked out
                    script.js       draws its figures from `REPORT`; may be missing
                    figure.py       draws the same as PNG, with matplotlib; may be missing

One from outside of this repository is such a folder of a package, or one Python file, which holds
the texts of the others in `files`. Importing a section loads neither matplotlib nor Optuna.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from trustsweep.distributed.run.folder import Run

Data = TypeVar("Data")


class Section(ABC, Generic[Data]):
    """A section of the page, from its data to its figures.

    Attributes:
        name: By which it is registered.
        after: The section that it comes behind; "" for the end of the page.
        figure: What its PNG file in `figures/` is called, without the suffix; "" for no file.
        absent: The payload of a run whose page leaves the section out.
        files: The texts of page.html.j2, script.js and whatever these include, by file name, for a
            section without a folder.
    """

    after: ClassVar[str] = ""
    figure: ClassVar[str] = ""
    absent: ClassVar[Mapping[str, Any]] = {}
    files: ClassVar[Mapping[str, str]] = {}

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def template(self) -> str:
        """Its part of the page, by the name under which Jinja finds it."""
        return f"{self.name}/page.html.j2"

    @property
    def script(self) -> str:
        """JavaScript that draws its figures; "" where it has none."""
        return self.text("script.js") or ""

    def text(self, file: str) -> str | None:
        """The text of a file of the section; None where there is no such file."""
        if file in self.files:
            return self.files[file]
        package = sys.modules[type(self).__module__]
        path = Path(str(package.__file__)).parent / file
        # The folder of a single file is not its own.
        own = hasattr(package, "__path__") and path.is_file()
        return path.read_text(encoding="utf-8") if own else None

    @abstractmethod
    def gather(self, run: Run) -> Data | None:
        """The section's data of a run; None where the page leaves the section out.

        Writes nothing. Raises `UserError` for broken files.
        """

    def payload(self, run: Run, data: Data) -> dict[str, Any]:
        """Data of its script, beside the shared ones; no other section's keys."""
        return {}

    def draw(self, run: Run, data: Data) -> Figure | None:
        """Its figure for papers and slides; None where there is nothing to draw."""
        return None

    def write(self, data: Data) -> None:
        """Write its tables, if any, into the run folder."""
