"""The KPIs: the registry, and a module per family."""
