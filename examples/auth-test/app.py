"""An API with bearer tokens of its own, for one customer. The token is made at
the first start and kept in DATA_DIR/token; whoever has it is let in. Nothing in
front of it knows of it. Standard library only, Python 3.9 or newer."""

import hmac
import json
import os
import secrets
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def load_token(path):
    """The token kept in path, made and written there (0600) if there is none."""
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except FileNotFoundError:
        pass
    token = secrets.token_urlsafe(32)
    partial = path + ".new"
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        file.write(token + "\n")
    os.replace(partial, path)  # whole or not at all
    return token


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave in one packet, not two
    token = ""  # set by main

    def do_GET(self):
        if self.path == "/health":  # open: the health checks have no token
            self.answer(200, {"status": "ok"})
        elif self.path == "/whoami":
            self.whoami()
        else:
            self.answer(404, {"error": "there is /whoami and /health"})

    def whoami(self):
        """Tells which Authorization header arrived, and whether it lets its sender in."""
        seen = self.headers.get("Authorization", "")
        expected = "Bearer " + self.token
        # Compared as bytes, and in constant time: a header may hold anything.
        if hmac.compare_digest(seen.encode("utf-8", "surrogateescape"), expected.encode()):
            self.answer(200, {"welcome": True, "authorization": seen})
        else:
            self.answer(401, {"error": "not a token of this app", "authorization": seen})

    def answer(self, status, value):
        body = json.dumps(value).encode() + b"\n"
        self.send_response(status)
        if status == 401:
            self.send_header("WWW-Authenticate", 'Bearer realm="auth-test"')
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    request_queue_size = 128  # the default of 5 makes a crowd wait a second


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    Handler.token = load_token(os.path.join(os.environ["DATA_DIR"], "token"))
    Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()


if __name__ == "__main__":
    main()
