"""What the site's dashboard shows: the ids that it reads, its stored payloads, and the rows in its annual tables."""
