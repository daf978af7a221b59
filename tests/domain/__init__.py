"""Tests of the till: pure arithmetic, single commands, and the posting queue under load and failure."""

import pytest

# Helpers assert too: without this, their failures would say nothing but AssertionError.
pytest.register_assert_rewrite("tests.domain.books", "tests.domain.tills")
