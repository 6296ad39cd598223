"""A guest book for one customer. It has no idea of tenants: it reads DATA_DIR
and PORT, and serves whoever asks. Standard library only, Python 3.9 or newer."""

import contextlib
import json
import os
import signal
import sqlite3
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MAX_BODY = 64 * 1024  # bytes


def connect():
    """A connection per request: SQLite connections stay in the thread that made them."""
    db = sqlite3.connect(os.environ["DATA_DIR"] + "/app.db", timeout=5)
    return contextlib.closing(db)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections open; every answer has a length
    wbufsize = -1  # head and body leave in one packet, not two

    def do_GET(self):
        if self.path == "/health":
            self.answer(200, {"status": "ok"})
        elif self.path in ("/", "/notes"):
            with connect() as db:
                rows = db.execute("SELECT id, text FROM notes ORDER BY id DESC").fetchall()
            self.answer(200, [{"id": row[0], "text": row[1]} for row in rows])
        else:
            self.answer(404, {"error": "there is /notes and /health"})

    def do_POST(self):
        if self.path != "/notes":
            self.refuse(404, "there is /notes and /health")
            return
        length = int(self.headers.get("Content-Length", -1))
        if length < 0:
            self.refuse(411, "send a Content-Length")
            return
        if length > MAX_BODY:
            self.refuse(413, "the note is too long")
            return
        text = self.rfile.read(length).decode("utf-8", "replace").strip()
        if not text:
            self.answer(400, {"error": "the note is empty"})
            return
        with connect() as db, db:
            note_id = db.execute("INSERT INTO notes (text) VALUES (?)", (text,)).lastrowid
        self.answer(201, {"id": note_id, "text": text})

    def refuse(self, status, reason):
        self.close_connection = True  # the body stays unread
        self.answer(status, {"error": reason})

    def answer(self, status, value):
        body = json.dumps(value).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    request_queue_size = 128  # the default of 5 makes a crowd wait a second


def main():
    # Without a handler Python ends by the signal itself, which is no clean exit.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with connect() as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")
    Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()


if __name__ == "__main__":
    main()
