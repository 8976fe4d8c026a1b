"""One run of a job: prepared, launched or adopted, supervised, settled, cleared up after."""
