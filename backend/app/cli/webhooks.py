"""Commands for webhooks: webhooks list, deliveries, show, disable, enable, replay."""

from collections.abc import Sequence
from typing import Annotated

import typer

from app.auth.identity import COMMAND_LINE
from app.cli.base import console, prepare_settings, run_with_database
from app.core.plurals import counted
from app.db.session import Database
from app.schemas.integrations.webhook import (
    DeliveryDetails,
    DeliveryQuery,
    DeliveryResponse,
    DeliveryState,
    Replay,
    WebhookQuery,
    WebhookResponse,
    WebhookUpdate,
)
from app.schemas.page import MAX_LIMIT
from app.services.integrations import webhooks

cli = typer.Typer(no_args_is_help=True, help="Webhooks of all users.")

WebhookArgument = Annotated[int, typer.Argument(help="An id of `webhooks list`.")]
DeliveryArgument = Annotated[int, typer.Argument(help="An id of `webhooks deliveries`.")]


def _print(lines: Sequence[str], *, otherwise: str) -> None:
    text = "\n".join(lines) or otherwise
    console.print(text, markup=False, highlight=False, soft_wrap=True)


@cli.command("list")
def list_webhooks(
    *,
    owner: Annotated[int | None, typer.Option(help="The id of a user; all by default.")] = None,
    failing: Annotated[
        bool, typer.Option("--failing", help="Only those that fail, or were disabled for it.")
    ] = False,
) -> None:
    """List webhooks, newest first."""

    async def fetch(database: Database) -> list[str]:
        lines: list[str] = []
        query: WebhookQuery | None = WebhookQuery(owner=owner, limit=MAX_LIMIT)
        while query is not None:
            page = await webhooks.list_webhooks(database.reader, query=query, user=COMMAND_LINE)
            lines += [
                _describe(each)
                for each in page.items
                if not failing or each.failures or each.disabled_reason
            ]
            query = query.model_copy(update={"cursor": page.next}) if page.next else None
        return lines

    lines = run_with_database(prepare_settings(log_level="WARNING"), fetch)
    _print(lines, otherwise="No webhook fails" if failing else "There is no webhook")


def _describe(webhook: WebhookResponse) -> str:
    state = "working"
    if not webhook.is_active:
        state = f"disabled: {webhook.disabled_reason or 'by a user'}"
    elif webhook.failing_since is not None:
        state = f"{counted(webhook.failures, 'failure')} since {webhook.failing_since:%F %T}"
    return f"{webhook.id:>8}  user {webhook.owner_id}  {webhook.url}  {state}"


@cli.command()
def deliveries(
    webhook_id: WebhookArgument,
    *,
    state: Annotated[DeliveryState | None, typer.Option(help="Only those in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=MAX_LIMIT)] = 20,
) -> None:
    """List the deliveries of a webhook, newest first."""
    query = DeliveryQuery(state=state, limit=limit)

    async def fetch(database: Database) -> Sequence[DeliveryResponse]:
        page = await webhooks.list_deliveries(
            database.reader, webhook_id=webhook_id, query=query, user=COMMAND_LINE
        )
        return page.items

    found = run_with_database(prepare_settings(log_level="WARNING"), fetch)
    _print([_describe_delivery(each) for each in found], otherwise="There is no delivery")


def _describe_delivery(delivery: DeliveryResponse) -> str:
    following = delivery.next_attempt_at
    rest = "" if following is None else f", next {following:%F %T}"
    return (
        f"{delivery.id:>8}  {delivery.created_at:%F %T}  {delivery.kind:<20}"
        f"  {delivery.state}, {counted(delivery.attempts, 'attempt')}{rest}"
    )


@cli.command()
def show(webhook_id: WebhookArgument, delivery_id: DeliveryArgument) -> None:
    """Show a delivery and its attempts, newest first, with the beginning of each answer."""

    async def fetch(database: Database) -> DeliveryDetails:
        return await webhooks.get_delivery(
            database.reader, webhook_id=webhook_id, delivery_id=delivery_id, user=COMMAND_LINE
        )

    found = run_with_database(prepare_settings(log_level="WARNING"), fetch)
    lines = [_describe_delivery(found)]
    for attempt in found.log:
        result = attempt.error or f"status {attempt.status}"
        answer = f"  {attempt.answer!r}" if attempt.answer else ""
        lines.append(f"{attempt.started_at:%F %T}  {attempt.milliseconds:>6} ms  {result}{answer}")
    _print(lines, otherwise="")


@cli.command()
def disable(webhook_id: WebhookArgument) -> None:
    """Disable a webhook. It keeps its position in the events."""
    _set_active(webhook_id, is_active=False)
    console.print(f"Webhook {webhook_id} is disabled", highlight=False)


@cli.command()
def enable(webhook_id: WebhookArgument) -> None:
    """Enable a webhook. It gets what it has missed, as far as the events still exist."""
    _set_active(webhook_id, is_active=True)
    console.print(f"Webhook {webhook_id} is enabled", highlight=False)


def _set_active(webhook_id: int, *, is_active: bool) -> None:
    changes = WebhookUpdate(is_active=is_active)

    async def run(database: Database) -> None:
        async with database.unit_of_work() as session:
            await webhooks.update_webhook(
                session, webhook_id=webhook_id, changes=changes, actor=COMMAND_LINE
            )

    run_with_database(prepare_settings(log_level="WARNING"), run)


@cli.command()
def replay(
    webhook_id: WebhookArgument,
    since: Annotated[str, typer.Option(help="Queued at this time or later, with a time zone.")],
    until: Annotated[str, typer.Option(help="Queued before this time, with a time zone.")],
) -> None:
    """Send deliveries again, except for those that are pending: at most 1,000 at a time."""
    span = Replay.model_validate({"since": since, "until": until})

    async def run(database: Database) -> int:
        async with database.unit_of_work() as session:
            replayed = await webhooks.replay_span(
                session, webhook_id=webhook_id, span=span, actor=COMMAND_LINE
            )
        return replayed.deliveries

    count = run_with_database(prepare_settings(log_level="WARNING"), run)
    verb = "is" if count == 1 else "are"
    message = f"{counted(count, 'delivery', 'deliveries')} {verb} sent again"
    console.print(message, highlight=False)
