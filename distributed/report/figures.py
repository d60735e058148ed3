"""The report's figures as PNG files, for papers and slides. No browser and no display needed."""

from __future__ import annotations

from pathlib import Path

import matplotlib

from trustsweep.distributed.report.contents import Contents
from trustsweep.distributed.report.drawing import STYLE
from trustsweep.distributed.report.sections import sections


def write_figures(contents: Contents) -> list[Path]:
    """Draw what the run has data for into `<run>/figures/`; returns the files written.

    A figure left there by an earlier report is removed if it can no longer be drawn.
    """
    run = contents.run
    folder = run.path / "figures"
    folder.mkdir(exist_ok=True)
    written = []
    with matplotlib.rc_context(STYLE):
        for section in (s for s in sections() if s.figure):
            path, data = folder / f"{section.figure}.png", contents.data[section.name]
            figure = None if data is None else section.draw(run, data)
            if figure is None:
                path.unlink(missing_ok=True)
            else:
                figure.savefig(path)
                written.append(path)
    return written
