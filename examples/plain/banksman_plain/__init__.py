"""A refund desk: an ordinary pydantic-ai agent whose refunds wait for a person.

Nothing here is special to Banksman but the tools' metadata: `requires_approval=True` and
`CallDeferred` are pydantic-ai's own. The model is a script, so that the example works without a key.
"""

from __future__ import annotations

import re

from pydantic_ai import Agent, CallDeferred, DeferredToolRequests

from banksman_worker.asking import external, questions
from banksman_worker.scripted import Call, Seen, Turn, scripted_model

PROMPT = "The customer of order A-1042 writes that the lamp arrived broken. Refund it."
_ORDERS = {
    "A-1042": {"item": "desk lamp", "paid": "59.00", "currency": "EUR"},
    "A-1043": {"item": "standing desk", "paid": "740.00", "currency": "EUR"},
}


def _look_up(seen: Seen) -> Turn:
    order = re.search(r"[A-Z]-\d+", seen.prompt)
    if order is None:
        return Call("ask_customer", {"question": "Which order is it? It begins with A-."})
    return Call("lookup_order", {"order": order.group()})


def _continue(seen: Seen) -> Turn:
    refund = seen.last("issue_refund")
    if refund is not None:
        if refund.outcome == "success":
            return f"Done: {refund.text}"
        return f"I did not refund it: {refund.text}"
    found = seen.last("lookup_order")
    if found is None:
        answer = seen.last("ask_customer")
        order = re.search(r"[A-Z]-\d+", answer.text) if answer else None
        if order is None:
            return f"I could not find the order: {answer.text if answer else 'nobody answered.'}"
        return Call("lookup_order", {"order": order.group()})
    paid = re.match(r"(\S+): .* for (\S+) (\S+)", found.text)
    if paid is None:
        return found.text
    order, amount, currency = paid.groups()
    return Call("issue_refund", {"order": order, "amount": amount, "currency": currency})


desk = Agent(
    scripted_model(_look_up, _continue, name="scripted-desk"),
    instructions="You are a refund desk. Look the order up, then refund what was paid.",
    output_type=[str, DeferredToolRequests],
)


@desk.tool_plain(metadata={"banksman": "harmless"})
def lookup_order(order: str) -> str:
    """Say what was bought and paid."""
    found = _ORDERS.get(order)
    if found is None:
        return f"There is no order {order}."
    return f"{order}: {found['item']} for {found['paid']} {found['currency']}"


@desk.tool_plain(requires_approval=True)
def issue_refund(order: str, amount: str, currency: str = "EUR") -> str:
    """Pay money back to the customer of an order."""
    return f"refunded {amount} {currency} for {order}"


# Asking changes nothing, so nobody has to approve that the question is asked.
@desk.tool_plain(metadata={"banksman": "harmless"})
def ask_customer(question: str) -> str:
    """Ask a person, and wait for the answer."""
    raise CallDeferred(metadata={"banksman": "question", "question": question})


_CHOICES = ("Send a new one", "Say sorry")


def _ask_what_to_do(seen: Seen) -> Turn:
    return Call(
        "ask_person", {"question": f"A customer writes: {seen.prompt} What shall we do?", "choices": list(_CHOICES)}
    )


def _act_on_the_answer(seen: Seen) -> Turn:
    answer = seen.last("ask_person")
    if answer is None or answer.outcome != "success" or answer.text not in _CHOICES:
        return f"Nobody could say what to do: {answer.text if answer else 'no answer.'}"
    if answer.text == "Say sorry":
        return "We are sorry, and will do better."
    order = re.search(r"[A-Z]-\d+", seen.prompt)
    return Call("wait_for_delivery", {"order": order.group() if order else "unknown"})


def _tell_the_customer(seen: Seen) -> Turn:
    delivered = seen.last("wait_for_delivery")
    return f"A new one was sent: {delivered.text}" if delivered else _act_on_the_answer(seen)


support = Agent(
    scripted_model(_ask_what_to_do, _act_on_the_answer, _tell_the_customer, name="scripted-support"),
    instructions="You answer customers. Ask a person what to do, and say how it came out.",
    toolsets=[questions()],
)


@support.tool_plain(metadata={"banksman": "harmless"})
def wait_for_delivery(order: str) -> str:
    """Wait until the carrier has delivered what was sent for an order."""
    raise external(order=order)


agents = {"desk": desk, "support": support}
