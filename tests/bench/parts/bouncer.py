"""Debian's PgBouncer before a server, session pooling: what one would put in the gateway's place. It refuses root, as Postgres does."""
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

import pq
from cluster import ROOT, wait_for
from parts.stock import free_port


def program():
    """Installed when it is missing, as tools/test does with what it lacks."""
    if shutil.which("pgbouncer", path="/usr/sbin:/usr/bin") is None:
        subprocess.run(["bash", "-ec", f". {ROOT}/tools/lib/setup.sh; install_packages pgbouncer"], check=True,
                       stdout=subprocess.DEVNULL)
    return shutil.which("pgbouncer", path="/usr/sbin:/usr/bin")


class Bouncer:
    def __init__(self, process, port, role, password, database):
        self.process = process
        self.uri = f"postgresql://{role}:{password}@127.0.0.1:{port}/{database}"


def write_settings(folder, port, server_port, role, password, database):
    for name, text in (
            ("users.txt", f'"{role}" "{password}"\n'),
            ("pgbouncer.ini", f"[databases]\n{database} = host=127.0.0.1 port={server_port} dbname={database}\n[pgbouncer]\n"
             f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\n"
             f"auth_file = {folder}/users.txt\npool_mode = session\nmax_client_conn = 500\ndefault_pool_size = 200\n"
             "ignore_startup_parameters = extra_float_digits,options\nlog_connections = 0\nlog_disconnections = 0\n"
             f"client_tls_sslmode = allow\nclient_tls_key_file = {folder}/key.pem\n"
             f"client_tls_cert_file = {folder}/cert.pem\nserver_tls_sslmode = disable\n")):
        (folder / name).write_text(text)
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
                    "30", "-subj", "/CN=localhost", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"], check=True,
                   stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def running(run_as, server_port, role, password, database):
    """TLS with a client is the client's choice; between it and the server there is none, as with our gateway."""
    path, port = program(), free_port()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="anabranch-bouncer-"))
    prefix = ["setpriv", f"--reuid={run_as}", f"--regid={run_as}", "--init-groups"] if os.geteuid() == 0 else []
    write_settings(folder, port, server_port, role, password, database)
    if os.geteuid() == 0:
        for each in (folder, *folder.iterdir()):
            shutil.chown(each, run_as)
    with open(folder / "log", "w") as log:
        process = subprocess.Popen([*prefix, path, "pgbouncer.ini"], cwd=folder, stdout=log, stderr=log)
    try:
        bouncer = Bouncer(process, port, role, password, database)
        wait_for("PgBouncer answers", lambda: pq.connect(bouncer.uri).close() or True)
        yield bouncer
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        shutil.rmtree(folder)
