"""Why a provider could not be reached stands in the error.

The SDKs say "Connection error." and no more.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.support.providers import forget_clients, template

from agent_runtime import AgentFactory, ProviderError

MODELS = {"openai": "openai:gpt-5-mini", "anthropic": "anthropic:claude-haiku-4-5"}


def self_signed(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    )
    builder = (
        builder.serial_number(1).not_valid_before(now).not_valid_after(now + dt.timedelta(days=1))
    )
    certificate = builder.sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "tls.pem").write_bytes(private + certificate.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.pem")
    return context


async def failure(
    url: str, provider: str, monkeypatch: pytest.MonkeyPatch, *, streamed: bool
) -> str:
    monkeypatch.setenv("DUMMY_KEY", "dummy-key-for-tests")
    forget_clients()
    model = {"id": MODELS[provider], "base_url": url, "api_key": {"from_env": "DUMMY_KEY"}}
    async with AgentFactory() as factory:
        agent = factory.create_agent(template(model=model, runtime={"retry": {"attempts": 1}}))
        with pytest.raises(ProviderError) as failed:
            if streamed:
                async with agent.execute_stream("hi") as stream:
                    _ = [piece async for piece in stream]
            else:
                await agent.execute("hi")
    return str(failed.value)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("provider", MODELS)
async def test_a_certificate_that_nobody_trusts(
    provider: str, streamed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=self_signed(tmp_path))
    async with server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        assert "CERTIFICATE_VERIFY_FAILED" in await failure(
            url, provider, monkeypatch, streamed=streamed
        )


@pytest.mark.parametrize("provider", MODELS)
async def test_nothing_listens_there(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    try:
        raise FileNotFoundError("what the application is handling meanwhile")
    except FileNotFoundError:
        said = await failure(f"http://127.0.0.1:{port}/v1", provider, monkeypatch, streamed=False)
    assert "Connect call failed" in said
    assert "meanwhile" not in said
