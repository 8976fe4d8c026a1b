"""Whether tests run in their long form."""

import os

LONG = os.environ.get("CLAUDE_JOBS_LONG") == "1"
"""`poe chaos` sets the variable. A test that reads this has the marker `long`."""
