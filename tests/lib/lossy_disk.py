"""lossyfs from Python: mount it, cut the power, and what else tests/lib/lossyfs/lossy_control.h says.

    with lossy_disk.mounted(build, folder) as disk:
        ...                     # work in disk.folder, and end whoever has a file open there
        disk.command("cut 7")
"""
import contextlib
import json
import os
import pathlib
import shutil
import subprocess

from cluster import wait_for


def why_not(build):
    """A reason why there is no lossyfs here, or None."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "there is no /dev/fuse that may be opened: this machine (or container) has no FUSE"
    if not (pathlib.Path(build) / "tests/lib/lossyfs/lossyfs").exists():
        return "lossyfs was not built: it needs libfuse3-dev (tools/test installs it), then meson setup again"
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        return "mounting as an ordinary user needs the package fuse3"
    return None


class Disk:
    def __init__(self, build, folder, names="strict"):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.control = self.folder / ".lossyfs"
        self.process = subprocess.Popen([pathlib.Path(build) / "tests/lib/lossyfs/lossyfs", f"--names={names}", self.folder])
        try:
            wait_for(f"{self.folder} is mounted", self._is_mounted, 20, 0.01)
        except (RuntimeError, TimeoutError):
            self.unmount()
            raise

    def _is_mounted(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"lossyfs ended with {self.process.returncode}")
        return self.control.exists()

    def command(self, line):
        # One write, without truncating first.
        with open(self.control, "r+b", buffering=0) as control:
            control.write(line.encode())

    def status(self):
        with open(self.control, "rb", buffering=0) as control:
            return json.loads(control.read(4096))

    def unmount(self):
        self.process.terminate()
        self.process.wait(20)


@contextlib.contextmanager
def mounted(build, folder, names="strict"):
    disk = Disk(build, folder, names)
    try:
        yield disk
    finally:
        disk.unmount()
