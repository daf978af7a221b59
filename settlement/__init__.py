"""The month end: periods, closing, netting, statements, invariants."""
