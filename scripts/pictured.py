"""Agents for the pictures in the documentation, beside those of `examples/`. Their models are scripts, and their tools
pay and send nothing: what a picture shows went through a real stack, and moved nothing but rows.
"""

from __future__ import annotations

import re

from pydantic_ai import Agent, DeferredToolRequests

from banksman_worker.deep import deep_agent
from banksman_worker.scripted import Call, Seen, Turn, scripted_model

POLICY = """

# For the pictures.

[[rule]]
name = "payments"
tool = "pay_invoice"
then = "ask"
tier = "high"
because = "Money that leaves the house is looked at by two people."

[[rule]]
name = "vouchers"
tool = "send_voucher"
then = "ask"
tier = "low"
because = "A voucher is money."
"""


def _pay(seen: Seen) -> Turn:
    del seen
    invoice = {
        "recipient": "The\u200b Supplier",
        "account": "XX00 EXAMPLE 0001",
        "remittance_mail": "invoices@suppli\u0435r.example.org",
        "amount": "4810.00",
        "currency": "EUR",
    }
    return Call("pay_invoice", invoice)


def _paid(seen: Seen) -> Turn:
    found = seen.last("pay_invoice")
    return "Nothing came back." if found is None else f"The invoice: {found.text}"


payables = Agent(
    scripted_model(_pay, _paid, name="scripted-payables"),
    instructions="You pay the invoices that come in by mail.",
    output_type=[str, DeferredToolRequests],
)


@payables.tool_plain(requires_approval=True)
def pay_invoice(recipient: str, account: str, remittance_mail: str, amount: str, currency: str = "EUR") -> str:
    """Pay an invoice by bank transfer, and mail the remittance slip."""
    return f"paid {amount} {currency} to {recipient}, {account}; the slip went to {remittance_mail}"


def _send(seen: Seen) -> Turn:
    found = re.search(r"(\S+@\S+) waited (\d+) days", seen.prompt)
    if found is None:
        return "I cannot tell who waited."
    # It slips once, as a model would.
    amount = "60.00" if found[2] == "13" else "6.00"
    return Call("send_voucher", {"customer": found[1], "amount": amount, "currency": "EUR"})


def _sent(seen: Seen) -> Turn:
    found = seen.last("send_voucher")
    return "Nothing was sent." if found is None else found.text


goodwill = Agent(
    scripted_model(_send, _sent, name="scripted-goodwill"),
    instructions="You send a voucher of six euros to each customer whose parcel came late.",
    output_type=[str, DeferredToolRequests],
)


@goodwill.tool_plain(requires_approval=True)
def send_voucher(customer: str, amount: str, currency: str = "EUR") -> str:
    """Mail a voucher to a customer."""
    return f"sent a voucher of {amount} {currency} to {customer}"


_PATH = "/workspace/backup.toml"
_BEFORE = """\
# Which folders are backed up, and for how long.
[backup]
folders = ["/srv/orders", "/srv/mail"]
keep_days = 30
compress = true

[schedule]
at = "02:30"
"""


def _write(seen: Seen) -> Turn:
    del seen
    return Call("write_file", {"path": _PATH, "content": _BEFORE})


def _change(seen: Seen) -> Turn:
    del seen
    old = 'folders = ["/srv/orders", "/srv/mail"]\nkeep_days = 30\n'
    new = 'folders = ["/srv/orders", "/srv/mail", "/srv/invoices"]\nkeep_days = 3\n'
    return Call("edit_file", {"path": _PATH, "old_string": old, "new_string": new})


def _changed(seen: Seen) -> Turn:
    done = seen.last("edit_file")
    if done is None or done.outcome != "success":
        return "The settings stay as they were."
    return "I added /srv/invoices to the backup. Everything else stays as it was."


keeper = deep_agent(
    model=scripted_model(_write, _change, _changed, name="scripted-keeper"),
    instructions="You keep the backup's settings.",
    interrupt_on={"write_file": True, "edit_file": True, "execute": True},
)

agents = {"payables": payables, "goodwill": goodwill, "keeper": keeper}
