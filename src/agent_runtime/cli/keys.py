"""Implement `agent-runtime keys`: API keys."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from agent_runtime.cli.options import parse_seconds
from agent_runtime.cli.output import echo, echo_json
from agent_runtime.cli.state import open_keys

if TYPE_CHECKING:
    from agent_runtime.auth import ApiKey


@click.group()
@click.option(
    "--store", metavar="URL", help="sqlite:FILE or redis://...; default: the state directory."
)
@click.pass_context
def keys(context: click.Context, store: str | None) -> None:
    """Create, list, revoke, rotate and sign API keys."""
    context.obj = store


@keys.command()
@click.argument("user")
@click.option("--tenant", default="default", show_default=True)
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    help="run:TEMPLATE, resume:*, *; repeatable. Default: run:*, resume:*",
)
@click.option("--expires-in", metavar="DURATION", help="30d, 12h; default: never.")
@click.option("--note", default="", help="The key's purpose.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def create(
    store: str | None,
    user: str,
    tenant: str,
    scopes: tuple[str, ...],
    expires_in: str | None,
    note: str,
    *,
    as_json: bool,
) -> None:
    """Create a key for USER. It is printed only this once; only its HMAC is stored."""
    expires_at = (
        None if expires_in is None else time.time() + parse_seconds(expires_in, "--expires-in")
    )
    granted_scopes = scopes or ("run:*", "resume:*")
    key, record = open_keys(store).create(
        user, tenant=tenant, scopes=granted_scopes, note=note, expires_at=expires_at
    )
    _print_new_key(key, record, as_json=as_json)


@keys.command("list")
@click.option("--tenant", help="Only this tenant's.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@click.pass_obj
def list_keys(store: str | None, tenant: str | None, *, as_json: bool) -> None:
    """List keys, oldest first."""
    api_keys = open_keys(store).list(tenant)
    now = time.time()
    if as_json:
        echo_json([{**k.to_dict(), "status": k.status(now)} for k in api_keys])
        return
    for k in api_keys:
        echo(
            f"{k.id}  {k.status(now):8} {k.tenant:16} {k.user:20} {','.join(k.scopes)}  "
            f"{k.note}".rstrip()
        )


@keys.command()
@click.argument("key_id")
@click.option(
    "--with-successors/--only-this",
    default=None,
    help="Whether to revoke the keys it was rotated to, too; asked by default.",
)
@click.pass_obj
def revoke(store: str | None, key_id: str, *, with_successors: bool | None) -> None:
    """End the key KEY_ID: every process refuses it within five seconds."""
    from agent_runtime.errors import ConfigurationError

    api_keys = open_keys(store)
    try:
        revoked = api_keys.revoke(key_id, with_successors=with_successors)
    except ConfigurationError as error:
        if not sys.stdin.isatty():
            raise ConfigurationError(f"{error} (--with-successors or --only-this)") from None
        with_successors = click.confirm(f"{error}. End both?", default=True)
        revoked = api_keys.revoke(key_id, with_successors=with_successors)
    echo(f"revoked {revoked.id}")


@keys.command()
@click.pass_obj
def sign(store: str | None) -> None:
    """Sign the records of earlier versions, once, after you have looked at them with `list`."""
    for record in open_keys(store).sign():
        echo(f"signed {record.id}  {record.tenant:16} {record.user:20} {','.join(record.scopes)}")


@keys.command()
@click.argument("key_id")
@click.option(
    "--overlap",
    metavar="DURATION",
    default="24h",
    show_default=True,
    help="How long the old key stays valid.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def rotate(store: str | None, key_id: str, overlap: str, *, as_json: bool) -> None:
    """Create a key with the rights of KEY_ID, which stays valid for the overlap."""
    key, record = open_keys(store).rotate(key_id, parse_seconds(overlap, "--overlap"))
    _print_new_key(key, record, as_json=as_json)


def _print_new_key(key: str, record: ApiKey, *, as_json: bool) -> None:
    document: dict[str, Any] = {"key": key, **record.to_dict()}
    echo_json(document) if as_json else echo(key)
    if not as_json:
        echo(
            f"key {record.id} of {record.user} ({record.tenant}): keep it, it is not shown again",
            err=True,
        )
