"""How a run's record ends: closed, settled, completed by an imported notebook."""
