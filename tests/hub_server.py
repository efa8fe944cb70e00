"""A Hub in memory, with the part of the API that huggingface_hub needs to publish and load models."""

import base64
import hashlib
import json
import os
import re
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from clean_process import run_without_package

USER, TOKEN, READ_TOKEN = "tester", "hf_" + "w" * 34, "hf_" + "r" * 34
ROLES = {TOKEN: "write", READ_TOKEN: "read"}
NEEDED = {"whoami-v2": "read", "validate-yaml": None, "paths-info": None}  # all other POST requests need "write"
URLS = (
    r"/api/(?P<what>whoami-v2|validate-yaml|repos)(/create)?",
    r"/api/models/(?P<repo>[^/]+/[^/]+)(/(?P<what>[^/]+)(/(?P<revision>[^/]+)(/(?P<path>.+))?)?)?",
    r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/(?P<what>batch|verify)",
    r"/(?P<repo>[^/]+/[^/]+)/(?P<what>resolve)/(?P<revision>[^/]+)/(?P<path>.+)",
    r"/(?P<what>lfs)/(?P<path>[0-9a-f]{64})",
)


@dataclass
class Request:
    """A request that arrived. `path` has no query, `range` is the header, `status` is None if there was no answer."""

    method: str
    path: str
    has_authorization: bool
    range: str | None
    status: int | None = None


@dataclass
class Fault:
    method: str
    pattern: str
    times: int
    count: int | None = None
    reset: bool = False
    status: int | None = None


class Refusal(Exception):
    """An error response, from whose status and code the client makes an exception."""

    def __init__(self, status: int, message: str, code: str = "", content: dict | None = None, **headers: str) -> None:
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answer = status, {"error": message} | (content or {}), {"X-Error-Code": code} | headers


class Blob(bytes):
    """A file in git."""

    git_oid = etag = property(lambda self: hashlib.sha1(b"blob %d\0" % len(self) + self).hexdigest())

    def entry(self) -> dict[str, Any]:
        return {"oid": self.git_oid, "size": len(self)}


class LFSBlob(Blob):
    """A file in LFS; git stores a pointer to it."""

    etag = property(lambda self: hashlib.sha256(self).hexdigest())

    def entry(self) -> dict[str, Any]:
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.etag}\nsize {len(self)}\n"
        lfs = {"oid": self.etag, "sha256": self.etag, "size": len(self), "pointerSize": len(pointer)}
        return {"oid": Blob(pointer.encode()).git_oid, "size": len(self), "lfs": lfs}


class Commit(NamedTuple):
    sha: str
    message: str
    files: dict[str, Blob]


@dataclass
class Repository:
    id: str
    private: bool
    commits: list[Commit] = field(default_factory=list)
    branches: dict[str, Commit] = field(default_factory=dict)
    tags: dict[str, Commit] = field(default_factory=dict)

    def commit(self, branch: str, message: str, files: dict[str, Blob]) -> Commit:
        state = [len(self.commits), message, sorted((path, blob.git_oid) for path, blob in files.items())]
        commit = Commit(hashlib.sha1(json.dumps(state).encode()).hexdigest(), message, files)
        self.commits.append(commit)
        self.branches[branch] = commit
        return commit

    def at(self, revision: str) -> Commit:
        """Return the commit of a branch, a tag or a hash of at least seven characters."""
        hashes = [commit for commit in self.commits if commit.sha.startswith(revision) and len(revision) >= 7]
        for commit in (self.branches.get(revision), self.tags.get(revision), *hashes):
            if commit:
                return commit
        raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")


class HubServer(ThreadingHTTPServer):
    """A Hub on 127.0.0.1 with models of `USER`, running from `start` to `stop` or as a context manager.

    `TOKEN` may write, `READ_TOKEN` may not, any other token is rejected. LFS storage is on `localhost`, which is
    another host for the client, so that it sends no token there, as with the storage of the real Hub.

    Attributes:
        endpoint, url: the value of `HF_ENDPOINT`.
        lfs: whether *.safetensors are uploaded by LFS; otherwise all files are part of the commit.
        repositories: repositories by id; `repositories["tester/m"].at("v1").files` are bytes by path.
        objects: files uploaded by LFS, by SHA-256, whether or not a commit followed.
        requests: all requests, in order of arrival.
    """

    def __init__(self, lfs: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.endpoint = self.url = f"http://127.0.0.1:{self.server_port}"
        self.storage = f"http://localhost:{self.server_port}/lfs"
        self.lfs, self.lock = lfs, threading.Lock()
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, LFSBlob] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []

    def start(self) -> "HubServer":
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def stop(self, *error: object) -> None:
        self.shutdown()
        self.server_close()

    __enter__, __exit__ = start, stop

    def break_after(self, count: int | None, method: str, pattern: str, times: int = 1, reset: bool = False) -> None:
        """Close the connection of the next `times` requests whose method and path match.

        Args:
            count: number of bytes that get through: of the upload, or of the response to a request without a body (0:
                not even its status). None: the request is carried out and only the response is lost.
            method: the method, in capitals.
            pattern: regular expression to find in the path (without the query).
            times: number of requests to break. The client tries most requests 6 times, some only once.
            reset: whether to close with RST, like a host that fails, instead of FIN.
        """
        self.faults.append(Fault(method, pattern, times, count, reset))

    def answer(self, status: int, method: str, pattern: str, times: int = 1) -> None:
        """Answer the next `times` requests whose method and path match with an error `status`, such as 503, only."""
        self.faults.append(Fault(method, pattern, times, status=status))

    def environment(self, home: Path, token: str | None = TOKEN, **variables: str) -> dict[str, str]:
        """Return the variables of a process that uses this Hub, with its cache in `home` and no other Hub settings."""
        kept = {k: v for k, v in os.environ.items() if not re.match("HF_|HUGGING_?FACE_|TRANSFORMERS_", k)}
        off = ["HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_PROGRESS_BARS"]
        own = {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1,localhost"}
        return kept | dict.fromkeys(off, "1") | own | ({"HF_TOKEN": token} if token else {}) | variables

    def run(self, code: str, home: Path, token: str | None = TOKEN, **variables: str) -> Any:
        """Run `code` with this Hub where the package cannot be imported, and return the JSON that it prints last."""
        return run_without_package(code, home, self.environment(home, token, **variables))


class Handler(BaseHTTPRequestHandler):
    """A connection. The method `METHOD_what` answers `METHOD /.../what/...` with status, bytes or JSON, and headers."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle(self) -> None:
        with suppress(ConnectionError):
            super().handle()

    def log_message(self, *arguments: Any) -> None:
        pass

    def respond(self) -> None:
        url, hub = urlsplit(self.path), self.server
        name, length = unquote(url.path), int(self.headers.get("Content-Length", 0))
        request = Request(self.command, name, "Authorization" in self.headers, self.headers.get("Range"))
        with hub.lock:
            hub.requests.append(request)
            fits = (f for f in hub.faults if f.times and f.method == self.command and re.search(f.pattern, name))
            self.fault = fault = next(fits, None)
            if fault:
                fault.times -= 1
        count = fault.count if fault else None
        self.body = self.rfile.read(length if count is None else min(count, length))
        if len(self.body) < length:
            self.break_off()
        try:
            if fault and fault.status:
                raise Refusal(fault.status, "Out of order")
            with hub.lock:
                status, content, *headers = self.find(url.path, parse_qs(url.query))
        except Refusal as refusal:
            status, content, *headers = refusal.answer
        broken = fault and not fault.status
        if broken and not count:
            self.break_off()
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        request.status = status
        self.send_response(status)
        for header in {"Content-Length": len(content), **(headers[0] if headers else {})}.items():
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(content[:count] if self.command != "HEAD" else b"")
        if broken:
            self.break_off()

    do_GET = do_HEAD = do_POST = do_PUT = respond

    def break_off(self) -> None:
        if self.fault and self.fault.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.rfile.close()
            self.connection.close()
        raise ConnectionAbortedError

    def find(self, path: str, query: dict[str, list[str]]) -> tuple:
        self.query, token = query, self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.role = role = ROLES.get(token)
        if token and not role:
            raise Refusal(401, "", X_Error_Message="Invalid credentials in Authorization header")
        found = next(filter(None, (re.fullmatch(url, path) for url in URLS)), None)
        parts = {name: unquote(part) for name, part in found.groupdict().items() if part} if found else {}
        method = "GET" if self.command == "HEAD" else self.command
        what = parts.pop("what", "info" if parts else "")
        if (answer := getattr(self, f"{method}_{what}".replace("-", "_"), None)) is None:
            raise Refusal(404, "Sorry, we can't find the page you are looking for.")
        if "repo" in parts:
            parts["repo"] = repo = self.server.repositories.get(parts["repo"])
            if repo is None or (repo.private and not role):
                raise Refusal(404 if role else 401, "Repository not found", "RepoNotFound")
        needed = NEEDED.get(what, "write" if method == "POST" else None)
        if needed and not role:  # without the code, the client raises RepositoryNotFoundError only over https
            raise Refusal(401, "Invalid username or password.", "RepoNotFound" if "repo" in parts else "")
        if needed == "write" != role:
            raise Refusal(403, "Forbidden: you must use a write token")
        return answer(**parts)

    def GET_whoami_v2(self) -> tuple:
        return 200, {"type": "user", "name": USER, "orgs": [], "auth": {"accessToken": {"role": self.role}}}

    def POST_validate_yaml(self) -> tuple:
        return 200, {"errors": [], "warnings": []}

    def POST_repos(self) -> tuple:
        data, hub = json.loads(self.body), self.server
        repo_id = f"{data['organization'] or USER}/{data['name']}"
        answer = {"url": f"{hub.endpoint}/{repo_id}", "name": repo_id}
        if not repo_id.startswith(f"{USER}/"):
            raise Refusal(403, "You don't have the rights to create a model under this namespace")
        if repo_id in hub.repositories:
            raise Refusal(409, "You already created this model repo", content=answer)
        hub.repositories[repo_id] = repo = Repository(repo_id, data.get("visibility") == "private")
        repo.commit("main", "initial commit", {".gitattributes": Blob(b"*.safetensors filter=lfs -text\n")})
        return 200, answer

    def GET_info(self, repo: Repository, revision: str = "main") -> tuple:
        commit, siblings = repo.at(revision), []
        for path, blob in commit.files.items():
            entry = blob.entry()
            siblings.append({"rfilename": path} | (entry | {"blobId": entry["oid"]} if "blobs" in self.query else {}))
        return 200, {"id": repo.id, "private": repo.private, "sha": commit.sha, "siblings": siblings}

    GET_revision = GET_info

    def GET_refs(self, repo: Repository) -> tuple:
        def named(kind: str, names: dict[str, Commit]) -> list[dict[str, str]]:
            return [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": at.sha} for name, at in names.items()]

        return 200, {"branches": named("heads", repo.branches), "tags": named("tags", repo.tags), "converts": []}

    def GET_tree(self, repo: Repository, revision: str, path: str = ".") -> tuple:
        depth = None if self.query.get("recursive") == ["true"] else 1
        entries = self.entries(repo.at(revision).files)
        found = [entry for name, entry in entries.items() if Path(path) in list(Path(name).parents)[:depth]]
        if not found:
            raise Refusal(404, f"{path} does not exist on {revision}", "EntryNotFound")
        return 200, found

    def POST_paths_info(self, repo: Repository, revision: str) -> tuple:
        entries = self.entries(repo.at(revision).files)
        return 200, [entries[path] for path in parse_qs(self.body.decode())["paths"] if path in entries]

    def entries(self, files: dict[str, Blob]) -> dict[str, dict[str, Any]]:
        """Return folders and files by path."""
        folders = sorted({str(folder) for path in files for folder in Path(path).parents} - {"."})
        entries = {path: {"type": "directory", "oid": "0" * 40, "path": path} for path in folders}
        return entries | {path: {"type": "file", "path": path} | blob.entry() for path, blob in files.items()}

    def GET_resolve(self, repo: Repository, revision: str, path: str) -> tuple:
        commit = repo.at(revision)
        blob = commit.files.get(path)
        if blob is None:
            raise Refusal(404, "Entry not found", "EntryNotFound", X_Repo_Commit=commit.sha)
        if isinstance(blob, LFSBlob):
            linked = {"X-Linked-Size": len(blob), "X-Linked-ETag": f'"{blob.etag}"', "X-Repo-Commit": commit.sha}
            return 302, b"", linked | {"Location": f"{self.server.storage}/{blob.etag}"}
        return self.part(blob, {"X-Repo-Commit": commit.sha})

    def GET_lfs(self, path: str) -> tuple:
        return self.part(self.server.objects[path], {})

    def part(self, blob: Blob, headers: dict[str, str]) -> tuple:
        headers |= {"ETag": f'"{blob.etag}"', "Accept-Ranges": "bytes"}
        if not (part := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))):
            return 200, bytes(blob), headers
        begin, end = int(part[1]), min(int(part[2] or len(blob)), len(blob) - 1)
        return 206, bytes(blob[begin : end + 1]), headers | {"Content-Range": f"bytes {begin}-{end}/{len(blob)}"}

    def POST_preupload(self, repo: Repository, revision: str) -> tuple:
        there, answers = repo.at(revision).files, []
        for path in (file["path"] for file in json.loads(self.body)["files"]):
            mode = "lfs" if self.server.lfs and path.endswith(".safetensors") else "regular"
            oid = {"oid": there[path].etag} if path in there else {}
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False} | oid)
        return 200, {"files": answers}

    def POST_batch(self, repo: Repository) -> tuple:
        objects = json.loads(self.body)["objects"]
        for missing in (each for each in objects if each["oid"] not in self.server.objects):
            verify = f"{self.server.endpoint}/{repo.id}.git/info/lfs/objects/verify"
            upload = f"{self.server.storage}/{missing['oid']}"
            missing["actions"] = {"upload": {"href": upload}, "verify": {"href": verify}}
        return 200, {"transfer": "basic", "objects": objects}

    def PUT_lfs(self, path: str) -> tuple:
        if (blob := LFSBlob(self.body)).etag != path:
            raise Refusal(400, "This is not what was announced")
        self.server.objects[path] = blob
        return 200, b""

    def POST_verify(self, repo: Repository) -> tuple:
        return 200 if json.loads(self.body)["oid"] in self.server.objects else 404, {}

    def POST_commit(self, repo: Repository, revision: str) -> tuple:
        if revision not in repo.branches:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        head, message = repo.branches[revision], ""
        files = dict(head.files)
        for operation in map(json.loads, self.body.splitlines()):
            kind, value = operation["key"], operation["value"]
            if kind == "header":
                message = value["summary"]
                if not head.sha.startswith(value.get("parentCommit", "")):
                    raise Refusal(412, "A commit has happened since. Please refresh and try again.")
            elif kind == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]))
            elif kind == "lfsFile":
                if value["oid"] not in self.server.objects:
                    raise Refusal(400, f"{value['path']} points to what was not uploaded")
                files[value["path"]] = self.server.objects[value["oid"]]
            elif files.pop(value["path"], None) is None:
                raise Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
        sha = repo.commit(revision, message, files).sha
        return 200, {"commitOid": sha, "commitUrl": f"{self.server.endpoint}/{repo.id}/commit/{sha}"}

    def POST_tag(self, repo: Repository, revision: str) -> tuple:
        return self.name(repo.tags, json.loads(self.body)["tag"], repo.at(revision))

    def POST_branch(self, repo: Repository, revision: str) -> tuple:
        return self.name(repo.branches, revision, repo.at(json.loads(self.body).get("startingPoint", "main")))

    def name(self, names: dict[str, Commit], name: str, commit: Commit) -> tuple:
        if name in names:
            raise Refusal(409, f"Reference {name} already exists")
        names[name] = commit
        return 201, {}
