"""What handlers of the tests' HTTP servers have in common."""

import json
from http.server import BaseHTTPRequestHandler
from typing import Any


class JsonHandler(BaseHTTPRequestHandler):
    """Reads and writes whole JSON bodies on kept connections, and writes no log; `post` says what to answer."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Read the request whole and leave the answer to `post`."""
        self.post(json.loads(self.rfile.read(int(self.headers["content-length"]))))

    def post(self, body: Any) -> None:
        """Answer a request, or leave it without one."""
        raise NotImplementedError

    def answer(self, content: object, status: int = 200) -> None:
        """Send `content` as JSON."""
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Be quiet."""
