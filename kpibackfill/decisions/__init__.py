"""A person's decisions on single rows, as a spreadsheet saves them."""
