"""The till: everything that happens while a customer waits."""
