"""A run folder as one page that opens offline, and the same figures as PNG."""

from distributed.report.page import write_report

__all__ = ["write_report"]
