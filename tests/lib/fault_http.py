"""A HTTP proxy that misbehaves on demand: between a client under test and a real server.

    with FaultProxy(server.port) as proxy:
        proxy.add(answer(503, b"..."), method="PUT", times=2)   # the first two PUTs
        ... the client talks to proxy.port ...
        proxy.seen                                              # [(method, path with query), ..]

An action is a function (exchange) -> None; it answers through the exchange, or closes. Without an action a request is
forwarded. Nothing sleeps: what stalls waits until the client hangs up.
"""
import http.client
import socket
import ssl
import threading


class Exchange:
    """One request: read whole, not answered yet."""

    def __init__(self, proxy, stream, method, path, headers, body):
        self.proxy, self.stream = proxy, stream
        self.method, self.path, self.headers, self.body = method, path, headers, body
        self.open = True  # may the connection carry another request

    def forward(self):
        """-> (status, headers, body) of the real server, for the same bytes."""
        upstream = http.client.HTTPConnection("127.0.0.1", self.proxy.upstream_port, timeout=60)
        upstream.putrequest(self.method, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers:
            if name.lower() != "expect":
                upstream.putheader(name, value)
        upstream.endheaders(self.body or None)
        reply = upstream.getresponse()
        body = reply.read()
        upstream.close()
        return reply.status, reply.getheaders(), body

    def head_of(self, status, headers, size):
        lines = [f"HTTP/1.1 {status} {http.client.responses.get(status, 'Status')}"]
        lines += [f"{n}: {v}" for n, v in headers
                  if n.lower() not in ("transfer-encoding", "connection") and
                  (n.lower() != "content-length" or self.method == "HEAD")]
        if self.method != "HEAD" and status != 204:
            lines.append(f"Content-Length: {size}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def answer(self, status, headers, body):
        self.stream.sendall(self.head_of(status, headers, len(body)) + (b"" if self.method == "HEAD" else body))

    def answer_part(self, status, headers, body, size):
        """All of the head, the first `size` bytes of the body; the caller decides what follows."""
        self.stream.sendall(self.head_of(status, headers, len(body)) + body[:size])

    def close(self):
        self.open = False

    def wait_for_hangup(self):
        while self.stream.recv(65536):
            pass
        self.open = False


def flip(body):
    """One bit, in the middle."""
    damaged = bytearray(body)
    damaged[len(body) // 2] ^= 1
    return bytes(damaged)


# Actions.


def answer(status, body=b"", headers=()):
    """Instead of the server, which never sees the request."""
    return lambda exchange: exchange.answer(status, list(headers), body)


def drop_request(exchange):
    exchange.close()


def lose_answer(exchange):
    """The server does it, and nobody hears of it."""
    exchange.forward()
    exchange.close()


def answer_instead(status, body=b""):
    """The server does it, the client hears something else."""
    def act(exchange):
        exchange.forward()
        exchange.answer(status, [], body)
    return act


def cut_request(exchange):
    """The server gets the head and half of the body, then nothing more; the client gets nothing."""
    head = f"{exchange.method} {exchange.path} HTTP/1.1\r\n"
    head += "".join(f"{n}: {v}\r\n" for n, v in exchange.headers if n.lower() != "expect")
    with socket.create_connection(("127.0.0.1", exchange.proxy.upstream_port)) as upstream:
        upstream.sendall(head.encode() + b"\r\n" + exchange.body[:len(exchange.body) // 2])
        upstream.shutdown(socket.SHUT_WR)
        while upstream.recv(65536):
            pass
    exchange.close()


def damage_request(exchange):
    exchange.body = flip(exchange.body)
    exchange.answer(*exchange.forward())


def cut_answer(exchange):
    status, headers, body = exchange.forward()
    exchange.answer_part(status, headers, body, len(body) // 2)
    exchange.close()


def stall_answer(exchange):
    status, headers, body = exchange.forward()
    exchange.answer_part(status, headers, body, len(body) // 2)
    exchange.wait_for_hangup()


def rewrite(change):
    """change(status, headers, body) -> the same, as the client shall see it."""
    return lambda exchange: exchange.answer(*change(*exchange.forward()))


damage_answer = rewrite(lambda status, headers, body: (status, headers, flip(body)))
shorten_answer = rewrite(lambda status, headers, body: (status, headers, body[:len(body) // 2]))


class FaultProxy:
    def __init__(self, upstream_port, certificate=None):
        """certificate: a PEM file with certificate and key makes it HTTPS."""
        self.upstream_port = upstream_port
        self.rules, self.seen, self.lock = [], [], threading.Lock()
        self.tls = None
        if certificate:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(certificate)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.streams = set()

    @property
    def endpoint(self):
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self):
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        with self.lock:
            for stream in self.streams:
                try:
                    stream.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def add(self, action, method=None, contains="", times=None):
        """For requests of the method whose path and query contain the text; `times` None: always."""
        with self.lock:
            self.rules.append([method, contains, times, action])

    def unused(self):
        """How often actions that were to happen so often have not happened yet."""
        with self.lock:
            return sum(times or 0 for _, _, times, _ in self.rules)

    def clear(self):
        with self.lock:
            self.rules, self.seen = [], []

    def accept(self):
        while True:
            try:
                stream, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(stream,), daemon=True).start()

    def serve(self, stream):
        with self.lock:
            self.streams.add(stream)
        try:
            if self.tls:
                stream = self.tls.wrap_socket(stream, server_side=True)
            while self.serve_one(stream):
                pass
        except (OSError, ValueError, http.client.HTTPException):
            pass  # the client went away, or was sent away: what it sees is what is tested
        finally:
            with self.lock:
                self.streams.discard(stream)
            stream.close()

    def read_head(self, stream):
        """-> (head, first bytes of the body)"""
        data = b""
        while b"\r\n\r\n" not in data:
            more = stream.recv(65536)
            if not more:
                return None, b""
            data += more
        return data.split(b"\r\n\r\n", 1)

    def serve_one(self, stream):
        head, body = self.read_head(stream)
        if head is None:
            return False
        first, *lines = head.decode().split("\r\n")
        method, path, _ = first.split(" ", 2)
        headers = [tuple(line.split(": ", 1)) if ": " in line else (line.rstrip(":"), "") for line in lines]
        low = {n.lower(): v for n, v in headers}
        if "expect" in low:
            stream.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        while len(body) < int(low.get("content-length", 0)):
            more = stream.recv(1 << 20)
            if not more:
                return False
            body += more
        exchange = Exchange(self, stream, method, path, headers, body)
        action = self.choose(method, path)
        if action is None:
            exchange.answer(*exchange.forward())
        else:
            action(exchange)
        return exchange.open

    def choose(self, method, path):
        with self.lock:
            self.seen.append((method, path))
            for rule in self.rules:
                if rule[0] in (None, method) and rule[1] in path and rule[2] != 0:
                    if rule[2] is not None:
                        rule[2] -= 1
                    return rule[3]
        return None
