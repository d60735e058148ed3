"""What a section of the page is: a folder of `trustsweep.distributed.report.sections`.

    sections/<name>/__init__.py     what is worked out of a run, and SECTION
                    page.html.j2    its part of the page; `data` is what was worked out
                    script.js       draws its figures from `REPORT`; may be missing
                    figure.py       draws the same as PNG, with matplotlib; may be missing

Importing a section loads neither matplotlib nor Optuna.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from trustsweep.distributed.run.folder import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Data = TypeVar("Data")


class Section(ABC, Generic[Data]):
    """A section of the page, from its data to its figures.

    Attributes:
        figure: What its PNG file in `figures/` is called, without the suffix; "" for no file.
        absent: The payload of a run whose page leaves the section out.
    """

    figure: ClassVar[str] = ""
    absent: ClassVar[Mapping[str, Any]] = {}

    @property
    def name(self) -> str:
        """The name of its folder."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def template(self) -> str:
        """Its part of the page, by the name under which Jinja finds it."""
        return f"{self.name}/page.html.j2"

    @property
    def script(self) -> str:
        """JavaScript that draws its figures; "" where it has none."""
        file = resources.files(type(self).__module__) / "script.js"
        return file.read_text(encoding="utf-8") if file.is_file() else ""

    @abstractmethod
    def gather(self, run: Run) -> Data | None:
        """What the section shows of a run; None where the page leaves the section out.

        Writes nothing. Raises `UserError` for broken files.
        """

    def payload(self, run: Run, data: Data) -> dict[str, Any]:
        """What its script draws from, beside what all scripts share; no other section's keys."""
        return {}

    def draw(self, run: Run, data: Data) -> Figure | None:
        """Its figure for papers and slides; None where there is nothing to draw."""
        return None

    def write(self, data: Data) -> None:
        """Write its tables, if any, into the run folder."""
