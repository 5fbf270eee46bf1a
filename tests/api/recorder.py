"""A proxy in front of control that remembers every exchange, so that all answers that any client gets are checked."""
import http.client
import http.server
import json
import threading
import urllib.parse


class Exchange:
    def __init__(self, method, target, status, body, headers):
        self.method, self.target, self.status, self.headers = method, target, status, headers
        self.path = urllib.parse.urlsplit(target).path
        try:
            self.body = json.loads(body) if body else None
        except ValueError:
            self.body = body

    def __str__(self):
        return f"{self.method} {self.target} -> {self.status}"


class Recorder:
    def __init__(self, port):
        self.exchanges, self.lock = [], threading.Lock()
        recorder = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(self):
                size = int(self.headers.get("Content-Length") or 0)
                sent = self.rfile.read(size)
                upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
                headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
                upstream.request(self.command, self.path, sent or None, headers)
                answer = upstream.getresponse()
                body = answer.read()
                upstream.close()
                with recorder.lock:
                    recorder.exchanges.append(
                        Exchange(self.command, self.path, answer.status, body, dict(answer.headers)))
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    if name.lower() not in ("content-length", "connection", "date"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/api/v2"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
