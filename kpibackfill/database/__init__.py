"""All that differs between database engines: connections and transactions, SQL expressions, the look of a table."""
