"""The GraphQL contract: one file per noun, the view that serves it, and the snapshot of its schema."""
