"""Slots, the search, the ledger, fronts, the report and the command line."""
