#!/usr/bin/env python3
"""`leaves_nothing.py PROGRAM`: a unit test that dies fails, and its program leaves nothing in TMPDIR."""
import os
import subprocess
import sys
import tempfile

with tempfile.TemporaryDirectory() as temp:
    done = subprocess.run([sys.argv[1]], env={**os.environ, "TMPDIR": temp}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    left = os.listdir(temp)
    assert done.returncode == 1 and "Errors: 1" in done.stdout, done
    assert left == [], left
