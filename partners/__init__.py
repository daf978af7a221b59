"""A partner's life: onboarding, stores, contract terms and budgets as edited by people."""
