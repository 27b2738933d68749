"""The archive of runs: typed documents, the hash-chained ledger, records, and what is read out of them."""
