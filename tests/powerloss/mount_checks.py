"""lossyfs through the kernel: a layer that loses nothing would prove nothing, so it is made to lose here."""
import errno
import os
import signal
import subprocess
import sys

SEEDS = 24


def sync_folder(folder):
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_file(path, content, sync=True):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(fd, content)
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)


def replace(folder, content, file_sync=True, folder_sync=True):
    """What every writer of a small file has to do."""
    write_file(folder / "state.new", content, file_sync)
    os.rename(folder / "state.new", folder / "state")
    if folder_sync:
        sync_folder(folder)


def found_after_cuts(disk, **mistakes):
    """How often the new state is there, whole, after a power cut."""
    found = 0
    for seed in range(SEEDS):
        replace(disk.folder, b"old" * 3000)
        replace(disk.folder, b"new" * 3000, **mistakes)
        disk.command(f"cut {seed}")
        found += (disk.folder / "state").exists() and (disk.folder / "state").read_bytes() == b"new" * 3000
    return found


def check_a_right_writer_loses_nothing(disk):
    assert found_after_cuts(disk) == SEEDS


def check_a_writer_that_forgets_fsync_is_caught(disk):
    assert found_after_cuts(disk, file_sync=False) < SEEDS


def check_a_writer_that_forgets_the_folder_is_caught(disk):
    assert found_after_cuts(disk, folder_sync=False) < SEEDS


def check_files_behave(disk):
    """Names, sizes, links, appends and lists, as anybody expects of a file system."""
    folder = disk.folder / "folder"
    folder.mkdir()
    for number in range(500):
        (folder / f"file {number}").write_bytes(b"x" * number)
    assert sorted(os.listdir(folder)) == sorted(f"file {n}" for n in range(500))
    big = folder / "file 1"
    with open(big, "ab") as file:
        for _ in range(10):
            file.write(b"y" * 100000)
    assert big.read_bytes() == b"x" + b"y" * 1000000
    os.truncate(big, 5000)
    os.truncate(big, 6000)
    assert big.read_bytes() == b"x" + b"y" * 4999 + bytes(1000)
    os.link(big, folder / "linked")
    os.rename(big, folder / "file 2")
    assert (folder / "linked").stat().st_nlink == 2 and (folder / "file 2").stat().st_size == 6000
    with open(folder / "linked", "rb") as held:
        os.unlink(folder / "linked")
        assert len(held.read()) == 6000
    os.posix_fallocate(os.open(folder / "file 3", os.O_WRONLY), 0, 10000)
    assert (folder / "file 3").stat().st_size == 10000
    for name in os.listdir(folder):
        os.unlink(folder / name)
    os.rmdir(folder)


def expect(error, function, *args):
    try:
        function(*args)
    except OSError as got:
        assert got.errno == error, got
        return
    raise AssertionError(f"no {errno.errorcode[error]}")


def check_faults(disk):
    path = disk.folder / "faulty"
    write_file(path, b"a" * 100)
    sync_folder(disk.folder)
    disk.command("fail sync EIO 1 /faulty")
    expect(errno.EIO, write_file, path, b"b" * 200)
    fd = os.open(path, os.O_RDWR)
    os.fsync(fd) # succeeds, and what it was about is gone
    os.close(fd)
    assert path.read_bytes() == b"a" * 100
    disk.command("fail read EIO 1 /faul*")
    expect(errno.EIO, path.read_bytes)
    disk.command("flip /faulty 50 0")
    assert path.read_bytes() == b"a" * 50 + b"`" + b"a" * 49
    disk.command("capacity 8192")
    expect(errno.ENOSPC, write_file, disk.folder / "large", bytes(100000))
    disk.command("heal")
    write_file(disk.folder / "large", bytes(100000))
    expect(errno.EINVAL, disk.command, "explode")


def check_death_at_a_change(disk):
    """A process ends in the middle of its work, at the change that was named, and not before."""
    child = subprocess.Popen(
        [sys.executable, "-c", "import os, sys; sys.stdin.readline(); fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)\n"
         "for _ in range(100): os.write(fd, b'1')", disk.folder / "counted"], stdin=subprocess.PIPE)
    disk.command(f"kill 11 {child.pid}")
    child.communicate(b"\n")
    assert child.returncode == -signal.SIGKILL
    assert (disk.folder / "counted").stat().st_size == 9 # the first change made the file


CHECKS = [value for name, value in list(globals().items()) if name.startswith("check_")]
