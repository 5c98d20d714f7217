"""Takes the pictures of the documentation: a real stack on this machine, real runs, and Debian's Chromium.

    python scripts/screenshots.py [NAME ...]

Each picture is of a page as it is; nothing is drawn over. The data goes with the stack.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from playwright.sync_api import Browser, Page, sync_playwright

from banksman import Client, ledger
from banksman.cli import maildir
from banksman.ledger import staff
from banksman.shapes import Request
from banksman_gateway import sessions

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
AGENTS = "banksman_sysadmin:agents,banksman_plain:agents,pictured:agents"
MOST_BYTES = 250_000
WIDE, MIDDLE, PHONE = (1280, 800), (960, 900), (360, 640)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Studio:
    """A stack with runs in every state, and a browser to look at it."""

    facts: dict[str, Any]
    browser: Browser
    requests: dict[str, Request]
    batch: str

    def page(self, path: str, size: tuple[int, int] = MIDDLE, *, dark: bool = False, link: bool = False) -> Page:
        """A page, as Ana sees it who is signed in, or as whoever opens a mailed link."""
        context = self.browser.new_context(
            base_url=self.facts["gateway_url"],
            viewport={"width": size[0], "height": size[1]},
            device_scale_factor=2 if size == PHONE else 1,
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
        )
        if not link:
            context.add_cookies([{"name": "session", "value": self._session(), "url": self.facts["gateway_url"]}])
        page = context.new_page()
        page.goto(path)
        page.wait_for_load_state("networkidle") if size != WIDE else page.locator("#pane h1").wait_for()
        return page

    def of(self, name: str) -> str:
        """The address of a request's page."""
        return f"/requests/{self.requests[name].id}"

    def _session(self) -> str:
        pool = ledger.open_pool(self.facts["database_url"], size=1, name="banksman-screenshots")
        try:
            with ledger.transaction(pool) as conn:
                ana = staff.by_email(conn, "ana@example.org")
                assert ana is not None
                return sessions.start(conn, ana.id)
        finally:
            pool.close()


def inbox(studio: Studio) -> Page:
    """The list, and the request that is selected beside it."""
    return studio.page("/", WIDE)


def inbox_dark(studio: Studio) -> Page:
    """The same in the dark."""
    return studio.page("/", WIDE, dark=True)


def group(studio: Studio) -> Page:
    """Like requests side by side."""
    page = studio.page("/groups")
    page.get_by_role("link", name="send_voucher").click()
    return page


def trap(studio: Studio) -> Page:
    """A payment whose recipient is not what it seems."""
    return studio.page(studio.of("pay_invoice"))


def diff(studio: Studio) -> Page:
    """A change to a file."""
    return studio.page(studio.of("edit_file"))


def edit(studio: Studio) -> Page:
    """What a person changed, before they approve it."""
    page = studio.page(f"{studio.of('edit_file')}/edit")
    box = page.locator("textarea[name=arguments]")
    if box.count():
        box.fill(box.input_value().replace("keep_days = 3\\n", "keep_days = 30\\n"))
    else:
        box = page.locator("textarea[name$=new_string]")
        box.fill(box.input_value().replace("keep_days = 3\n", "keep_days = 30\n"))
    page.locator("main form button").last.click()
    return page


def run(studio: Studio) -> Page:
    """A run that is over."""
    page = studio.page(f"/runs/{studio.requests['finished'].run_id}", (960, 1300))
    page.locator("#files summary").first.click()
    page.locator("#files").evaluate("it => it.scrollIntoView({block: 'end'})")
    return page


def batch(studio: Studio) -> Page:
    """A batch on its way."""
    return studio.page(f"/batches/{studio.batch}")


def link_phone(studio: Studio) -> Page:
    """A mailed link on a phone."""
    wanted = studio.requests["issue_refund"].id
    folder = Path(studio.facts["maildir"])
    pattern = re.compile(r"http://localhost:\d+/l/\S+")

    def mailed() -> str | None:
        for mail in maildir.read(folder, to="ana@example.org"):
            for url in pattern.findall(mail.body()):
                page = studio.page(url, PHONE, link=True)
                found = page.url.endswith(wanted)
                page.context.close()
                if found:
                    return url
        return None

    return studio.page(_until(mailed, "the mail about the refund"), PHONE, link=True)


PICTURES: dict[str, Callable[[Studio], Page]] = {
    "inbox": inbox,
    "inbox-dark": inbox_dark,
    "group": group,
    "trap": trap,
    "diff": diff,
    "edit": edit,
    "run": run,
    "batch": batch,
    "link-phone": link_phone,
}


def main(names: list[str]) -> int:
    """Take the pictures that are named, or all; 1 when one is too large."""
    chromium = shutil.which("chromium")
    unknown = [name for name in names if name not in PICTURES]
    if chromium is None or unknown:
        why = f"There is no picture {unknown[0]!r}." if unknown else "Install Chromium first: apt-get install chromium"
        sys.stderr.write(f"{why}\n")
        return 2
    IMAGES.mkdir(exist_ok=True)
    large = 0
    with _stack() as facts, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        studio = _furnish(facts, browser)
        for name in names or PICTURES:
            page = PICTURES[name](studio)
            path = IMAGES / f"{name}.png"
            page.screenshot(path=path)
            page.context.close()
            size = path.stat().st_size
            large += size > MOST_BYTES
            sys.stdout.write(f"{path.relative_to(ROOT)}: {size:,} bytes{' (too large)' * (size > MOST_BYTES)}\n")
        browser.close()
    return 1 if large else 0


def _furnish(facts: dict[str, Any], browser: Browser) -> Studio:
    """Submit what the pictures show, wait until it waits, and decide some of it as reviewers would."""
    url, key = facts["gateway_url"], facts["submit_key"]
    token = next(one["token"] for one in facts["reviewers"] if one["email"] == "ben@example.org")
    with Client(url, key) as program, Client(url, token) as ben:

        def asked(agent: str, prompt: str) -> Request:
            made = program.submit(agent, prompt)
            return _until(lambda: next(iter(program.requests(run_id=made.id, state="open").items), None), prompt)

        found = {
            "issue_refund": asked(
                "desk", "The customer of order A-1042 writes that the lamp arrived broken. Refund it."
            ),
            "pay_invoice": asked("payables", "Pay the invoice that came by mail."),
            "edit_file": asked("keeper", "Back up /srv/invoices too."),
            "finished": asked("keeper", "Back up /srv/invoices too, and tell me what you changed."),
        }
        asked("sysadmin", "Create a backup script at /backup.sh that archives the /data directory")
        asked("support", "Order A-1043 came with a scratch.")
        ben.approve(found["finished"], reason="The invoices belong in it.")
        _until(lambda: program.run(found["finished"].run_id).over, "the approved run")
        days = [3, 5, 2, 4, 13, 6, 3, 2, 7, 4, 5, 3]
        lines = [
            {"agent": "goodwill", "prompt": f"customer{number}@example.org waited {waited} days for a parcel."}
            for number, waited in enumerate(days, 1)
        ]
        made = program.submit_batch(lines, name="Late parcels, week 47").id
        waiting = _until(
            lambda: (page := program.requests(batch_id=made, state="open").items) and len(page) == len(days) and page,
            "the batch",
        )
        for request in waiting[:3]:
            ben.approve(request)
        ben.deny(waiting[3], reason="This parcel came in time.")
        _until(lambda: program.batch(made).runs["finished"] >= 4, "the decided runs of the batch")
    return Studio(facts, browser, found, made)


@contextmanager
def _stack() -> Generator[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="banksman-pictures-") as name:
        folder = Path(name)
        policy = folder / "banksman.toml"
        sys.path.insert(0, str(ROOT / "scripts"))
        import pictured

        policy.write_text((ROOT / "examples" / "banksman.toml").read_text() + pictured.POLICY)
        clean = {key: value for key, value in os.environ.items() if not key.startswith("BANKSMAN_")}
        settings = {
            "BANKSMAN_DATA_DIR": str(folder / "data"),
            "BANKSMAN_POLICY": str(policy),
            "BANKSMAN_GATHER_LOW_MINUTES": "0",
            "PYTHONPATH": str(ROOT / "scripts"),
        }
        log = folder / "log"
        with log.open("wb") as out:
            popen = subprocess.Popen(
                [sys.executable, "-m", "banksman.cli", "up", "--agents", AGENTS, "--port", "0"],
                cwd=folder,
                env=clean | settings,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        facts = folder / "data" / "stack.json"
        try:
            _until(lambda: facts.exists() or popen.poll() is not None, "the stack", within=180)
            if not facts.exists():
                raise SystemExit(f"The stack did not start:\n{log.read_text()[-3000:]}")
            yield json.loads(facts.read_text())
        finally:
            popen.send_signal(signal.SIGINT)
            popen.wait(60)


def _until(fact: Callable[[], T | None], what: str, *, within: float = 90) -> T:
    """The first true answer of `fact`."""
    deadline = time.monotonic() + within
    while not (found := fact()):
        if time.monotonic() > deadline:
            raise SystemExit(f"This did not come about within {within:.0f} s: {what}.")
        time.sleep(0.1)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
