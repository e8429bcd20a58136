-- Everything is there: the launcher starts a janitor when this commits.
SELECT mmrepl._wake();
