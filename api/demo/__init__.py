"""The demo coalition: one year of real purchases, passed through the real posting path."""
