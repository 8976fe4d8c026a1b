#!/bin/sh
# A shell in front of shell_stub.py: were python the job's `claude`, every python that a test runs there would count as a
# second `claude`, which the engine ends.
python3 -I -S "${0%.sh}.py"
exit $?
