"""Every limit of the API, in one place: the view enforces them and ``viewer`` tells them."""

BODY_BYTES_MAX = 2 * 1024 * 1024
"""Room for earnMany's 500 purchases with some twenty basket lines each."""

QUERY_STRING_BYTES_MAX = 16 * 1024

TOKENS_MAX = 20_000
"""Tokens of one document: 500 purchases of earnMany fit in as literals."""

SELECTIONS_MAX = 1_000
"""Fields and fragments that a document names: comparing them with each other takes time by the square."""

DEPTH_MAX = 16
"""Levels of selections; the common introspection query has fifteen."""

COST_MAX = 50_000
"""Fields that may be resolved: each counts once per item of every list around it."""

LIST_ITEMS = 5
"""How many items a list without page size is taken to have."""

PAGE_DEFAULT = 20
PAGE_MAX = 100

MANY_MAX = 500
"""Commands of one earnMany, burnMany or reverseMany."""

REPORT_DAYS_MAX = 3_660
"""Days of one performance report: ten years."""

QUERIES_MAX = 500
"""Queries that are answered at a time; commands are bounded by the posting queue."""
