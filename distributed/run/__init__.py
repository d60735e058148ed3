"""A run as its folder has it: ledger, models, cards, front, exports. Free of Ray and torch."""
