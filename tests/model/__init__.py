"""A second model of the ledger, and the machine that makes both agree."""
