"""A W&B server for tests, in a process of its own: it shows what a client sends, not what the real one would make of it.

`python stand_in_server.py BEHAVIOUR` prints its URL, serves until its standard input closes, then prints what it got as JSON.
Behaviours: `ok`, `refuse` (every query answered by 401), `hang` (rows get no answer), `503` and `429` (rows get that for
an answer). GET /behave/NAME changes it, GET /refused says how often rows got 503 or 429.
"""

import gzip
import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ENTITY = "team"


class Got:
    """What has arrived for the one run."""

    def __init__(self):
        self.runs, self.summary, self.history = [], {}, {}
        self.exit_codes, self.preempting, self.views, self.uploads = [], 0, [], {}

    def file_stream(self, body):
        for name, chunk in (body.get("files") or {}).items():
            if name == "wandb-history.jsonl":
                self.history |= {chunk["offset"] + i: json.loads(text) for i, text in enumerate(chunk["content"])}
            elif name == "wandb-summary.json":
                self.summary = json.loads(chunk["content"][-1])
        self.preempting += bool(body.get("preempting"))
        if body.get("complete"):
            self.exit_codes.append(body["exitcode"])

    def answer(self, operation, variables, query, url):
        project = {"id": "p", "name": variables.get("project"), "entity": {"id": "e", "name": ENTITY}}
        if operation == "UpsertBucket":
            resumed = bool(self.runs)
            self.runs.append({"id": variables["name"], "config": json.loads(variables.get("config") or "{}")})
            bucket = {"id": variables["name"], "name": variables["name"], "displayName": "d", "config": "{}"}
            bucket |= {"historyLineCount": len(self.history), "project": project}
            return {"upsertBucket": {"inserted": not resumed, "bucket": bucket}}
        if operation == "RunResumeStatus":
            return {"model": {**project, "bucket": self.bucket(variables["name"]) if self.runs else None}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{url}/upload/{name}"} for name in variables["files"]]
            return {"createRunFiles": {"runID": variables["run"], "uploadHeaders": [], "files": files}}
        if operation == "ServerInfo" or "serverInfo" in query:
            versions = {"cliVersionInfo": {"max_cli_version": "99.0"}, "latestLocalVersionInfo": None, "features": []}
            return {"serverInfo": versions, "viewer": {"entity": ENTITY}}
        if operation.startswith("UpsertView"):
            self.views.append(variables)
            return {"upsertView": {"view": {"id": "v", "name": variables["name"]}, "inserted": True}}
        if operation in ("Viewer", "GetDefaultEntity"):
            return {"viewer": {"id": "u", "entity": ENTITY, "username": "u", "flags": "{}", "teams": {"edges": []}}}
        return None

    def bucket(self, name):
        newest = [json.dumps(self.history[max(self.history)])] if self.history else []
        counts = {"historyLineCount": len(self.history), "eventsLineCount": 0, "logLineCount": 0}
        texts = {"historyTail": json.dumps(newest), "eventsTail": "[]", "summaryMetrics": json.dumps(self.summary)}
        return {"id": name, "name": name, **counts, **texts, "config": "{}", "tags": [], "wandbConfig": '{"t": 1}'}


def serve(behaviour):
    got, lock, behaviour, refused = Got(), threading.Lock(), [behaviour], []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_GET(self):
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            if self.path.startswith("/behave/"):
                behaviour[0] = self.path.rpartition("/")[2]
                self.reply(200, {})
            elif self.path == "/refused":
                self.reply(200, len(refused))
            elif self.path == "/graphql":
                query = json.loads(body)
                operation = (re.search(r"(?:query|mutation)\s+(\w+)", query["query"]) or ["", ""])[1]
                with lock:
                    data = got.answer(operation, query.get("variables") or {}, query["query"], url)
                self.reply(401 if behaviour[0] == "refuse" else 200, {"data": data})
            elif self.path.startswith("/upload/"):
                with lock:
                    got.uploads[self.path.removeprefix("/upload/")] = body.decode(errors="replace")
                self.reply(200, {})
            elif self.path.endswith("/file_stream"):
                if behaviour[0] in ("503", "429"):
                    refused.append(behaviour[0])
                    self.reply(int(behaviour[0]), {"error": "not now"})
                    return
                if behaviour[0] == "hang":
                    threading.Event().wait()
                with lock:
                    got.file_stream(json.loads(body))
                self.reply(200, {})
            else:
                self.reply(404, {})

        do_POST = do_PUT = do_GET

        def reply(self, status, value):
            text = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(url, flush=True)
    sys.stdin.read()
    print(json.dumps({**vars(got), "history": [got.history[index] for index in sorted(got.history)]}))


if __name__ == "__main__":
    serve(sys.argv[1])
