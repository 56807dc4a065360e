"""
The program of :class:`~tests.integration.authorization_server.AuthorizationServer`.

Whether a request is good is for Authlib to say, by its server side in Flask; what is
here are its stores, in memory, and users who agree at once::

    /oauth2/token       every grant: client_credentials, password, refresh_token,
                        authorization_code (PKCE is a must), device_code
    /oauth2/authorize   the user agrees; they do not with login_hint=nobody
    /oauth2/device      device_authorization; /oauth2/approve is the user's part
    /oauth2/me          an API; what the token is for, as JSON
    /oauth1/initiate, /oauth1/authorize, /oauth1/token, /oauth1/me
                        the same for OAuth 1.0a
    /expire, /slow      test's: access tokens end now; the next poll is too early

Each request becomes a line of JSON in the log before it is answered.

The proxy's port is a forward proxy that wants a bearer token of this server.
"""

# Authlib has no annotations.
# mypy: disable-error-code="misc, import-untyped, no-untyped-call, no-any-return"
# mypy: disable-error-code="unused-ignore, untyped-decorator"

from __future__ import annotations

import argparse
import binascii
import hashlib
import hmac
import json
import socket
import ssl
import threading
import time
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

from authlib.integrations import flask_oauth1, flask_oauth2
from authlib.oauth1 import ClientMixin as OAuth1ClientMixin
from authlib.oauth1 import TemporaryCredential
from authlib.oauth1.rfc5849.signature import (
    generate_signature_base_string,
    plaintext_signature,
)
from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749 import (
    AuthorizationCodeMixin,
    ClientMixin,
    TokenMixin,
    grants,
)
from authlib.oauth2.rfc6750 import BearerTokenValidator
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oauth2.rfc8628 import (
    DeviceAuthorizationEndpoint,
    DeviceCodeGrant,
    DeviceCredentialDict,
)
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from flask import Flask, Response, jsonify, request
from werkzeug.serving import WSGIRequestHandler, make_server

ALICE, PASSWORD = "alice", "correct horse & battery"
SECRET = "s3cret: & more"
RSA_HASHES = {"RSA-SHA1": hashes.SHA1, "RSA-SHA256": hashes.SHA256}

app = Flask(__name__)
app.config["OAUTH2_REFRESH_TOKEN_GENERATOR"] = True
app.config["OAUTH2_TOKEN_EXPIRES_IN"] = {
    "authorization_code": 3600,
    "client_credentials": 3600,
    "password": 3600,
}


class User:
    def get_user_id(self) -> str:
        return ALICE


USER = User()


# OAuth 2


class Client(ClientMixin):
    """A client, by the way in which it authenticates."""

    def __init__(self, client_id: str, auth: str) -> None:
        self.client_id = client_id
        self.auth = auth

    def get_client_id(self) -> str:
        return self.client_id

    def get_default_redirect_uri(self) -> str:
        return "https://localhost/"

    def get_allowed_scope(self, scope: str) -> str:
        # Less than was asked for: the user keeps "all" to themselves.
        return " ".join(s for s in (scope or "").split() if s != "all")

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri.startswith("http://127.0.0.1:")

    def check_client_secret(self, client_secret: str) -> bool:
        return hmac.compare_digest(client_secret, SECRET)

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == self.auth

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        return True


class Token(TokenMixin):
    def __init__(self, members: dict[str, Any], client: Client, user: Any) -> None:
        self.members = members
        self.client = client
        self.user = user
        self.expires_at = time.time() + members.get("expires_in", 3600)
        self.refreshable = True

    def check_client(self, client: Client) -> bool:
        return self.client is client

    def get_scope(self) -> str:
        return self.members.get("scope", "")

    def get_expires_in(self) -> int:
        return self.members["expires_in"]

    def is_expired(self) -> bool:
        return self.expires_at <= time.time()

    def is_revoked(self) -> bool:
        return False

    def get_user(self) -> Any:
        return self.user

    def get_client(self) -> Client:
        return self.client


class Code(AuthorizationCodeMixin):
    def __init__(self, code: str, payload: Any, client: Client) -> None:
        self.code = code
        self.client = client
        self.redirect_uri = payload.redirect_uri
        self.scope = payload.scope
        self.code_challenge = payload.data.get("code_challenge")
        self.code_challenge_method = payload.data.get("code_challenge_method")

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope


CLIENTS = {
    client.client_id: client
    for client in (
        Client("basic", "client_secret_basic"),
        Client("post", "client_secret_post"),
        Client("public", "none"),
        Client("odd name:", "client_secret_basic"),
    )
}
TOKENS: list[Token] = []
CODES: dict[str, Code] = {}
DEVICES: list[DeviceCredentialDict] = []
APPROVED: dict[str, bool] = {}
TOO_EARLY = threading.Event()


def save_token(members: dict[str, Any], asked: Any) -> None:
    TOKENS.append(Token(members, asked.client, asked.user))


oauth2 = flask_oauth2.AuthorizationServer(app, CLIENTS.get, save_token)


class ClientCredentials(grants.ClientCredentialsGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic", "client_secret_post")


class Password(grants.ResourceOwnerPasswordCredentialsGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic", "none")

    def authenticate_user(self, username: str, password: str) -> User | None:
        return USER if (username, password) == (ALICE, PASSWORD) else None


class Refresh(grants.RefreshTokenGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = (
        "client_secret_basic",
        "client_secret_post",
        "none",
    )

    # Rotated for public clients (RFC 9700 4.14.2), kept for the others.
    @property
    def INCLUDE_NEW_REFRESH_TOKEN(self) -> bool:
        return self.request.client.auth == "none"

    def authenticate_refresh_token(self, refresh_token: str) -> Token | None:
        for token in TOKENS:
            if token.members.get("refresh_token") == refresh_token:
                return token if token.refreshable else None
        return None

    def authenticate_user(self, refresh_token: Token) -> Any:
        return refresh_token.user or USER

    def revoke_old_credential(self, refresh_token: Token) -> None:
        refresh_token.expires_at = 0
        refresh_token.refreshable = not self.INCLUDE_NEW_REFRESH_TOKEN


class AuthorizationCode(grants.AuthorizationCodeGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic", "none")

    def save_authorization_code(self, code: str, asked: Any) -> None:
        CODES[code] = Code(code, asked.payload, asked.client)

    def query_authorization_code(self, code: str, client: Client) -> Code | None:
        found = CODES.get(code)
        return found if found is not None and found.client is client else None

    def delete_authorization_code(self, authorization_code: Code) -> None:
        del CODES[authorization_code.code]

    def authenticate_user(self, authorization_code: Code) -> User:
        return USER


class Device(DeviceCodeGrant):
    def query_device_credential(self, device_code: str) -> Any:
        return next((d for d in DEVICES if d["device_code"] == device_code), None)

    def query_user_grant(self, user_code: str) -> tuple[User, bool] | None:
        approved = APPROVED.get(user_code)
        return None if approved is None else (USER, approved)

    def should_slow_down(self, credential: Any) -> bool:
        if TOO_EARLY.is_set():
            TOO_EARLY.clear()
            return True
        return False


class DeviceEndpoint(DeviceAuthorizationEndpoint):
    INTERVAL = 1

    def get_verification_uri(self) -> str:
        return request.url_root + "oauth2/approve"

    def save_device_credential(
        self, client_id: str, scope: str, data: dict[str, Any]
    ) -> None:
        expires_at = time.time() + data["expires_in"]
        DEVICES.append(
            DeviceCredentialDict(
                client_id=client_id, scope=scope, expires_at=expires_at, **data
            )
        )


oauth2.register_grant(ClientCredentials)
oauth2.register_grant(Password)
oauth2.register_grant(Refresh)
oauth2.register_grant(AuthorizationCode, [CodeChallenge(required=True)])
oauth2.register_grant(Device)
oauth2.register_endpoint(DeviceEndpoint)


class Validator(BearerTokenValidator):
    def authenticate_token(self, token_string: str) -> Token | None:
        for token in TOKENS:
            if token.members["access_token"] == token_string:
                return token
        return None


protect2 = flask_oauth2.ResourceProtector()
protect2.register_token_validator(Validator())


@app.post("/oauth2/token")
def issue() -> Response:
    return oauth2.create_token_response()


@app.get("/oauth2/authorize")
def authorize2() -> Response:
    user = None if request.args.get("login_hint") == "nobody" else USER
    grant = oauth2.get_consent_grant(end_user=user)
    return oauth2.create_authorization_response(grant_user=user, grant=grant)


@app.post("/oauth2/device")
def device() -> Response:
    return oauth2.create_endpoint_response(DeviceEndpoint.ENDPOINT_NAME)


@app.get("/oauth2/approve")
def approve() -> str:
    APPROVED[request.args["user_code"]] = "deny" not in request.args
    return "done"


@app.route("/oauth2/me", methods=["GET", "POST"])
@protect2()
def me2() -> Response:
    token = flask_oauth2.current_token
    user = token.user.get_user_id() if token.user else None
    return jsonify(
        client=token.client.client_id,
        user=user,
        scope=token.get_scope(),
        content=request.get_data(as_text=True),
    )


@app.post("/expire")
def expire() -> str:
    for token in TOKENS:
        token.expires_at = 0
    return "done"


@app.post("/slow")
def slow() -> str:
    TOO_EARLY.set()
    return "done"


# OAuth 1.0a


class OAuth1Client(OAuth1ClientMixin):
    def get_default_redirect_uri(self) -> str:
        return request.url_root + "oauth1/code"

    def get_client_secret(self) -> str:
        return SECRET

    def get_rsa_public_key(self) -> bytes:
        return PUBLIC_KEY


class Cache(dict[str, Any]):
    """What Authlib's hooks want of a cache."""

    def set(self, key: str, value: Any, timeout: int) -> None:
        self[key] = value

    def has(self, key: str) -> bool:
        return key in self

    def delete(self, key: str) -> None:
        self.pop(key, None)


PUBLIC_KEY = b""
CACHE = Cache()
OAUTH1_TOKENS: dict[str, TemporaryCredential] = {
    "personal": TemporaryCredential(oauth_token_secret=SECRET, user_id=ALICE)
}
METHODS = [
    *("HMAC-SHA1", "HMAC-SHA256", "HMAC-SHA512", "RSA-SHA1", "RSA-SHA256"),
    "PLAINTEXT",
]
app.config["OAUTH1_SUPPORTED_SIGNATURE_METHODS"] = METHODS


def query_client(client_id: str) -> OAuth1Client | None:
    return OAuth1Client() if client_id == "printer" else None


def create_token_credential(token: dict[str, str], temporary: Any) -> Any:
    made = TemporaryCredential({**token, "user_id": temporary.get_user_id()})
    OAUTH1_TOKENS[token["oauth_token"]] = made
    return made


oauth1 = flask_oauth1.AuthorizationServer(app, query_client)
flask_oauth1.register_temporary_credential_hooks(oauth1, CACHE)
flask_oauth1.register_nonce_hooks(oauth1, CACHE)
oauth1.register_hook("create_token_credential", create_token_credential)
protect1 = flask_oauth1.ResourceProtector(
    app,
    query_client,
    lambda client_id, token: OAUTH1_TOKENS.get(token),
    flask_oauth1.create_exists_nonce_func(CACHE),
)


def verify_hmac(name: str) -> Any:
    """Authlib knows SHA-1 only; the base string is its own for the others, too."""

    def verify(asked: Any) -> bool:
        key = plaintext_signature(asked.client_secret, asked.token_secret)
        text = generate_signature_base_string(asked)
        digest = hmac.new(key.encode(), text.encode(), getattr(hashlib, name)).digest()
        made = binascii.b2a_base64(digest, newline=False).decode()
        return hmac.compare_digest(made, asked.signature)

    return verify


def verify_rsa_sha256(asked: Any) -> bool:
    text = generate_signature_base_string(asked)
    key: Any = serialization.load_pem_public_key(asked.rsa_public_key)
    try:
        key.verify(
            binascii.a2b_base64(asked.signature),
            text.encode(),
            padding.PKCS1v15(),
            hashes.SHA256(),
        )
    except InvalidSignature:
        return False
    return True


for server in (flask_oauth1.AuthorizationServer, flask_oauth1.ResourceProtector):
    server.register_signature_method("HMAC-SHA256", verify_hmac("sha256"))
    server.register_signature_method("HMAC-SHA512", verify_hmac("sha512"))
    server.register_signature_method("RSA-SHA256", verify_rsa_sha256)


@app.post("/oauth1/initiate")
def initiate() -> Response:
    return oauth1.create_temporary_credentials_response()


@app.get("/oauth1/authorize")
def authorize1() -> Response:
    return oauth1.create_authorization_response(grant_user=USER)


@app.get("/oauth1/code")
def code() -> str:
    return request.args["oauth_verifier"]


@app.post("/oauth1/token")
def token1() -> Response:
    return oauth1.create_token_response()


@app.route("/oauth1/me", methods=["GET", "POST", "PUT", "DELETE"])
@protect1()
def me1() -> Response:
    return jsonify(
        user=flask_oauth1.current_credential.get_user_id(),
        query=request.args.to_dict(),
        form=request.form.to_dict(),
        length=len(request.get_data()),
    )


@app.get("/oauth1/challenged")
def challenged1() -> Response:
    """As ``/oauth1/me``, for clients that wait to be asked."""
    if "Authorization" not in request.headers:
        return Response(
            status=401, headers={"WWW-Authenticate": 'OAuth realm="printer"'}
        )
    return me1()


# A forward proxy


class BearerProxy(StreamRequestHandler):
    """Serves one CONNECT or GET to who has a token that Authlib takes for good."""

    def handle(self) -> None:
        while line := self.rfile.readline().strip():
            fields = {}
            while field := self.rfile.readline().strip():
                name, _, value = field.partition(b":")
                fields[name.strip().lower()] = value.strip().decode("latin-1")
            method, target, _ = line.decode("latin-1").split(" ")
            if refusal := self.refusal(fields.get(b"proxy-authorization", "")):
                note(method=method, path="proxy", status=407)
                self.say(f"407 No\r\nProxy-Authenticate: {refusal}")
            elif method == "CONNECT":
                note(method=method, path="proxy", status=200)
                self.tunnel(target)
                return
            else:
                note(method=method, path="proxy", status=200)
                self.say("200 OK")

    def refusal(self, value: str) -> str | None:
        scheme, _, token = value.partition(" ")
        if scheme.lower() != "bearer":
            return 'Bearer realm="proxy"'
        validator = Validator()
        try:
            validator.validate_token(validator.authenticate_token(token), [], None)
        except OAuth2Error as error:
            return f'Bearer realm="proxy", error="{error.error}"'
        return None

    def say(self, head: str) -> None:
        self.wfile.write(f"HTTP/1.1 {head}\r\nContent-Length: 0\r\n\r\n".encode())

    def tunnel(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        with socket.create_connection((host, int(port)), 10) as other:
            self.wfile.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            back = threading.Thread(target=relay, args=(other, self.connection))
            back.start()
            relay(self.connection, other)
            back.join()


def relay(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


# The program


LOG: Any = None
LOCK = threading.Lock()


def note(**facts: Any) -> None:
    with LOCK:
        LOG.write(json.dumps(facts) + "\n")
        LOG.flush()


@app.before_request
def note_request() -> None:
    scheme, _, _ = request.headers.get("Authorization", "").partition(" ")
    form = request.form.to_dict() if request.path == "/oauth2/token" else {}
    note(
        method=request.method,
        path=request.path,
        scheme=scheme,
        grant=form.get("grant_type"),
        form=sorted(form),
    )


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"


class Threads(ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--port", "--tls-port", "--proxy-port"):
        parser.add_argument(name, type=int, required=True)
    for name in ("--chain", "--key", "--log", "--rsa-public"):
        parser.add_argument(name, type=Path, required=True)
    options = parser.parse_args()
    global LOG, PUBLIC_KEY
    LOG = options.log.open("a")
    PUBLIC_KEY = options.rsa_public.read_bytes()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.chain, options.key)
    clear = make_server(
        "127.0.0.1", options.port, app, threaded=True, request_handler=Quiet
    )
    tls = make_server(
        "127.0.0.1",
        options.tls_port,
        app,
        threaded=True,
        request_handler=Quiet,
        ssl_context=context,
    )
    proxy = Threads(("127.0.0.1", options.proxy_port), BearerProxy)
    for each in (clear, proxy):
        threading.Thread(target=each.serve_forever, daemon=True).start()
    tls.serve_forever()


if __name__ == "__main__":
    main()
