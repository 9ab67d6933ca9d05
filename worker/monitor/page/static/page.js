// Looks again every few seconds, and copies commands. All else works without it.
"use strict";
(() => {
  const seconds = Number(document.body.dataset.seconds);
  const lost = document.getElementById("lost");
  const still = document.getElementById("still");
  document.documentElement.classList.add("with-script");

  // Makes `old` like `fresh` and leaves alone what is equal: focus, selection and scrolling stay.
  const follow = (old, fresh) => {
    if (old.isEqualNode(fresh)) return;
    if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || old.id !== fresh.id) {
      old.replaceWith(fresh.cloneNode(true));
      return;
    }
    if (old.nodeType !== Node.ELEMENT_NODE) {
      old.nodeValue = fresh.nodeValue;
      return;
    }
    for (const { name } of [...old.attributes]) {
      if (!fresh.hasAttribute(name)) old.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    const before = [...old.childNodes];
    const after = [...fresh.childNodes];
    after.forEach((child, place) => {
      if (place < before.length) follow(before[place], child);
      else old.append(child.cloneNode(true));
    });
    before.slice(after.length).forEach((child) => child.remove());
  };

  const scripts = (page) => [...page.querySelectorAll("script[src]")].map((script) => script.getAttribute("src")).join(" ");

  const look = async () => {
    const answer = await fetch(location.href, { cache: "no-store", credentials: "same-origin" });
    if (answer.headers.get("content-type")?.startsWith("text/html") !== true) throw new Error();
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (scripts(fresh) !== scripts(document)) {  // another kind of page, or another version of it
      location.reload();
      return;
    }
    document.title = fresh.title;
    for (const part of document.querySelectorAll("[data-live]")) {
      const its = fresh.querySelector(`[data-live="${part.dataset.live}"]`);
      if (its !== null) follow(part, its);
    }
  };

  const turn = async () => {
    if (still.getAttribute("aria-pressed") === "false" && !document.hidden) {
      try {
        await look();
        lost.hidden = true;
      } catch {
        lost.hidden = false;
      }
    }
    setTimeout(turn, seconds * 1000);
  };
  if (seconds > 0) setTimeout(turn, seconds * 1000);

  still?.addEventListener("click", () => {
    const held = still.getAttribute("aria-pressed") === "true";
    still.setAttribute("aria-pressed", String(!held));
  });

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button.copy");
    if (button === null) return;
    const code = button.previousElementSibling;
    getSelection().selectAllChildren(code);
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    } catch {
      // Not allowed, as over plain HTTP from another machine: it is selected, Ctrl-C copies it.
      button.textContent = "Selected";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    }
  });
})();
