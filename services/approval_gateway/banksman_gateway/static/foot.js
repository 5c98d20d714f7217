// The bar below the pane: each button is a key, and does what the key does. At tier high it says what is missing.
"use strict";

const foot = document.querySelector("#foot");
const [footSays, footLooking] = foot.querySelectorAll("span");
const keyButtons = Object.fromEntries([...foot.querySelectorAll("button")].map((one) => [one.dataset.key, one]));
const seenWhole = new WeakSet();
let paneSince = Date.now();
let footTimer = 0;

const isUnread = (box) => {
  if (atEnd(box)) seenWhole.add(box);
  return !seenWhole.has(box);
};

// What a careful vote still lacks, in words; the form says the same, further up.
function missing(form) {
  const guarded = form.querySelector("[data-guard]") ?? form;
  const button = form.querySelector(SUBMIT);
  const found = [];
  const left = Number(guarded.dataset.guard ?? 0) - (Date.now() - paneSince) / 1000;
  const unread = [...pane.querySelectorAll(".lines")].filter(isUnread);
  if (button.disabled && (unopened(pane).length || unread.length)) found.push("read on (r)");
  if (form.querySelector("textarea[required]")?.value.trim() === "") found.push("your words");
  const box = form.querySelector("input[name=read]");
  if (box && !box.checked && !box.closest("label").hidden) found.push("the tick that you read it");
  if (form.querySelector("input[type=radio]") && !form.querySelector("input[type=radio]:checked")) found.push("a choice");
  if (button.disabled && left > 0) {
    found.push(`${Math.ceil(left)} s`);
    footTimer = setTimeout(refreshFoot, 1000 * (left - Math.floor(left)) + 30);
  }
  return found;
}

function refreshFoot() {
  clearTimeout(footTimer);
  const live = Boolean(current && shown && shown === current.dataset.request && !current.dataset.done);
  const agree = live ? (formOf("approve") ?? formOf("answer")) : undefined;
  const deny = live ? formOf("deny")?.querySelector("textarea") : undefined;
  const decide = pane.querySelector("#decide");
  const hindered = Boolean(decide) && !decide.querySelector("form");
  foot.hidden = !current || !shown;
  keyButtons.a.textContent = agree && !formOf("approve") ? "Answer (a)" : "Approve (a)";
  keyButtons.a.disabled = !agree;
  keyButtons.d.disabled = !deny;
  keyButtons.e.disabled = !live || !pane.querySelector('a[href$="/edit"]');
  keyButtons.o.disabled = !current;
  const decidable = live && !hindered && pane.querySelector("form input[name=verdict]");
  for (const key of ["a", "d"]) keyButtons[key].hidden = !decidable;
  keyButtons.e.hidden = keyButtons.e.disabled && !decidable;
  const lacks = agree ? missing(agree) : [];
  foot.toggleAttribute("data-lacks", lacks.length > 0);
  footSays.textContent = hindered
    ? decide.querySelector("p").textContent
    : decidable && !agree
      ? "Say above what happened: this has no short answer."
      : lacks.length
        ? `Still missing: ${lacks.join(", ")}.`
        : "";
  showLooking(footLooking, current?.dataset.request);
}

foot.addEventListener("click", (event) => KEYS[event.target.closest("button")?.dataset.key]?.());
for (const name of ["input", "change", "scroll", "toggle"]) pane.addEventListener(name, refreshFoot, { capture: true });
new MutationObserver((changes) => {
  if (changes.some((one) => one.target === pane && one.type === "childList")) paneSince = Date.now();
  refreshFoot();
}).observe(pane, { subtree: true, childList: true, attributeFilter: ["disabled", "aria-busy"] });
new MutationObserver(refreshFoot).observe(list, { subtree: true, attributeFilter: ["data-done", "aria-current"] });
refreshFoot();
