"""The operator's page in a real Chromium: each view, what an operator does, and what he is told when things are wrong.

page.py URL TOKEN FOLDER PID: the server (process PID) has a held partition, runs and dead letters, and a
second one projects namespace page-2; screenshots go to FOLDER.
"""

import json
import os
import shutil
import signal
import sys
import urllib.request

from playwright.sync_api import expect, sync_playwright

url, token, folder, pid = sys.argv[1:5]
expect.set_options(timeout=60_000)  # generous: a busy machine is no failure


def publish(sequence, kind, data):
    event = {"specversion": "1.0", "id": str(sequence), "source": "page", "type": kind, "subject": "run/page.1",
             "sequence": sequence, "time": f"2026-02-19T12:00:{sequence:02}Z", "data": data}
    headers = {"content-type": "application/cloudevents+json", "authorization": f"Bearer {token}"}
    request = urllib.request.Request(url + "/v1/events?wait=projected&timeout=30s", json.dumps(event).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 200, answer.read()


def visit(page):
    """Asked for a token first; then live."""
    page.goto(url)
    page.get_by_role("textbox", name="Token").fill(token)
    page.get_by_role("button", name="Continue").click()
    expect(page.locator("#live")).to_have_text("live")


def fleet(page):
    held = page.get_by_role("alert")
    expect(held).to_contain_text("is held: dead_letter_share")
    expect(held).to_contain_text("khala dead-letters list")
    expect(page.locator("table tbody tr")).to_have_count(4)
    expect(page.locator(".tag", has_text="held")).to_have_count(1)
    page.screenshot(path=f"{folder}/fleet.png", full_page=True)
    page.get_by_role("button", name="Let it go on").click()
    page.get_by_role("dialog").get_by_role("button", name="Do it").click()
    expect(page.get_by_role("dialog")).to_contain_text("Done.")
    page.get_by_role("button", name="Close").click()
    expect(page.get_by_role("alert")).to_have_count(0)


def runs(page):
    page.keyboard.press("2")
    expect(page.get_by_role("heading", name="Runs")).to_be_visible()
    expect(page.locator("table tbody tr").first).to_be_visible()
    page.screenshot(path=f"{folder}/runs.png")
    page.get_by_role("combobox", name="status").select_option("canceling")
    expect(page.locator("table tbody .tag").first).to_have_text("canceling")
    expect(page.locator("table tbody .tag", has_text="succeeded")).to_have_count(0)
    page.keyboard.press("2")
    expect(page.get_by_role("combobox", name="status")).to_have_value("")
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox", name="run id")).to_be_focused()
    page.keyboard.type("page.1")
    page.keyboard.press("Enter")


def one_run(page):
    events = page.locator("ol.time li")
    expect(events).to_have_count(2)
    expect(page.locator("h2", has_text="Events")).to_contain_text("live")
    publish(3, "run.delta", {"delta": "streamed while you watch"})
    expect(events.first).to_contain_text("streamed while you watch")
    publish(4, "run.finished", {"status": "failed", "reason_class": "tool", "reason": "exit code 1"})
    expect(page.locator("#main")).to_contain_text("ended: all events are here")
    expect(page.locator("h1 .tag")).to_have_text("failed")
    page.screenshot(path=f"{folder}/run.png", full_page=True)
    page.get_by_role("button", name="Replay").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Show what it would do").click()
    expect(dialog).to_contain_text("Nothing was changed. It would do:")
    page.screenshot(path=f"{folder}/replay.png")
    dialog.get_by_role("button", name="Do it").click()
    expect(dialog).to_contain_text("Done.")
    dialog.get_by_role("button", name="Close").click()
    page.goto(url + "/#run/no.such.run")
    expect(page.get_by_role("heading", name="Not found")).to_be_visible()


def workers(page):
    page.keyboard.press("3")
    expect(page.locator("table tbody tr").first).to_be_visible()
    page.locator("table tbody tr").first.press("Enter")
    expect(page.locator("ol.time li").first).to_be_visible()


def nothing_and_trouble(page):
    """What is not easily made on a real server: a server without workers, and one whose store is away."""
    answers = [(200, {"documents": [], "cursor": None}, "There are no workers yet."),
               (503, {"error": {"code": "unreachable", "message": "the store is away", "detail": None}}, "It is tried again")]
    for status, body, words in answers:
        page.keyboard.press("1")
        page.route("**/v1/workers?limit=50*", lambda route: route.fulfill(status=status, json=body))
        page.keyboard.press("3")
        expect(page.locator("#main")).to_contain_text(words)
        page.screenshot(path=f"{folder}/workers-{status}.png")
        page.unroute_all()
    expect(page.locator("table tbody tr").first).to_be_visible()


def dead_letters(page):
    page.keyboard.press("4")
    expect(page.locator("table tbody tr").first).to_be_visible()
    page.screenshot(path=f"{folder}/dead-letters.png")
    page.get_by_role("button", name="Redrive").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Show what it would do").click()
    expect(dialog).to_contain_text("Nothing was changed. It would do:")
    page.keyboard.press("Escape")
    page.locator("table tbody tr").first.click()
    expect(page.get_by_role("heading", name="Headers")).to_be_visible()
    page.screenshot(path=f"{folder}/dead-letter.png")


def checkpoints(page):
    page.keyboard.press("5")
    expect(page.locator(".tag", has_text="good").first).to_be_visible()
    page.get_by_role("button", name="Audit").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Do it").click()
    expect(dialog).to_contain_text("Done.")
    dialog.get_by_role("button", name="Close").click()
    expect(page.locator(".tag", has_text="verified").first).to_be_visible()
    page.screenshot(path=f"{folder}/checkpoints.png")
    page.get_by_role("button", name="Replay").click()
    dialog.get_by_role("button", name="Show what it would do").click()
    expect(dialog).to_contain_text("Nothing was changed. It would do:")
    dialog.get_by_role("button", name="Do it").click()
    expect(dialog).to_contain_text("Done.")
    dialog.get_by_role("button", name="Close").click()


def start_rollout():
    """Readers of half of the entities are led to `page-2`, which a second server projects; documents decide alone."""
    plan = """[gates]
read_latency_p95_ms_max = 60000
lag_p95_events_max = 1000000
drift_max = 1000000
read_errors_max = 1000000
[[stage]]
name = "half"
percent = 50
hold = "1h"
[[stage]]
name = "all"
percent = 100
hold = "1h"
"""
    body = json.dumps({"candidate": "page-2", "plan": plan}).encode()
    headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
    with urllib.request.urlopen(urllib.request.Request(url + "/v1/rollout/start", body, headers), timeout=60) as answer:
        assert answer.status == 200, answer.read()


def rollout(page):
    page.keyboard.press("6")
    expect(page.locator("#main")).to_contain_text("There is no rollout.")
    expect(page.locator("#main")).to_contain_text("khala rollout start --candidate")
    start_rollout()
    page.keyboard.press("1")
    page.keyboard.press("6")
    expect(page.locator("h1 .tag")).to_have_text("rolling")
    expect(page.locator("#main")).to_contain_text("stage half, 50 % of the entities")
    expect(page.locator("tr", has_text="parity").locator(".tag")).to_have_text("ok")
    page.screenshot(path=f"{folder}/rollout.png", full_page=True)
    page.get_by_role("button", name="Pause").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Do it").click()
    expect(dialog).to_contain_text("Done.")
    dialog.get_by_role("button", name="Close").click()
    expect(page.locator("h1 .tag")).to_have_text("paused")
    page.get_by_role("button", name="Roll back").click()
    dialog.get_by_role("button", name="Do it").click()
    expect(dialog).to_contain_text("Done.")
    dialog.get_by_role("button", name="Close").click()
    expect(page.locator("h1 .tag")).to_have_text("rolled back")
    expect(page.get_by_role("button", name="Roll back")).to_have_count(0)
    page.screenshot(path=f"{folder}/rolled-back.png", full_page=True)


def disconnected(page):
    page.keyboard.press("1")
    os.kill(int(pid), signal.SIGTERM)
    expect(page.locator("#live")).to_have_text("disconnected, trying again")
    expect(page.locator("body.stale")).to_be_visible()  # the last figures stay, and look it
    page.screenshot(path=f"{folder}/disconnected.png")


with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
    wrong = []
    for scheme, size in [("light", (1280, 900)), ("dark", (390, 844))]:
        context = browser.new_context(color_scheme=scheme, viewport={"width": size[0], "height": size[1]})
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("request", lambda request: request.url.startswith(url) or wrong.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: "Content Security" in message.text and wrong.append(message.text))
        visit(page)
        if scheme == "light":
            publish(1, "run.started", {"owner_user_id": "ada"})
            publish(2, "run.delta", {"delta": "hello"})
            for view in [fleet, runs, one_run, workers, nothing_and_trouble, dead_letters, checkpoints, rollout]:
                view(page)
            context.close()
            continue
        for number, name in enumerate(["fleet", "runs", "workers", "dead-letters", "checkpoints", "rollout"], 1):
            page.keyboard.press(str(number))
            expect(page.locator("table tbody tr").first).to_be_visible()
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= size[0], f"{name} is {wide} px wide on a phone"
            page.screenshot(path=f"{folder}/phone-{name}.png")
        page.goto(url + "/#run/page.1")
        expect(page.locator("ol.time li")).to_have_count(4)
        page.screenshot(path=f"{folder}/phone-run.png")
        disconnected(page)
    assert not wrong, wrong
print("all views are as they should be")
