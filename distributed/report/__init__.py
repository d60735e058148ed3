"""A run folder as one page that opens offline, and the same figures as PNG."""

from trustsweep.distributed.report.page import render_page, write_report

__all__ = ["render_page", "write_report"]
