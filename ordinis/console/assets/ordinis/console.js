// Ages tick between two refreshes, and a refresh that fails is said out loud: nothing on a page
// may look fresh that is not. One box can choose all of a list.
"use strict";

(() => {
  // The same text as `age` in ordinis/console/text.py.
  const words = (seconds) => {
    if (seconds < 60) return `${seconds} s`;
    const minutes = Math.floor(seconds / 60);
    const rest = seconds % 60;
    if (minutes < 10) return rest ? `${minutes} min ${rest} s` : `${minutes} min`;
    if (minutes < 60) return `${minutes} min`;
    const hours = Math.floor(minutes / 60);
    if (hours < 24) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
    return `${Math.floor(hours / 24)} d`;
  };

  // Counted from when the element came, by a clock that no time zone or correction moves.
  const seen = new WeakMap();
  const tick = () => {
    const now = performance.now();
    for (const element of document.querySelectorAll("time[data-age]")) {
      if (!seen.has(element)) seen.set(element, now - Number(element.dataset.age) * 1000);
      const seconds = Math.floor((now - seen.get(element)) / 1000);
      const text = words(seconds) + element.dataset.after;
      if (element.textContent !== text) element.textContent = text;
    }
  };

  const lost = (is) => {
    document.getElementById("lost").hidden = !is;
  };

  // One box that chooses all of a list: nothing is sent by it.
  const chooseAll = () => {
    for (const all of document.querySelectorAll("input[data-chooses]")) {
      all.closest("label").hidden = false;
      all.addEventListener("change", () => {
        const each = `input[name="${all.dataset.chooses}"][form="${all.dataset.form}"]`;
        for (const box of document.querySelectorAll(each)) box.checked = all.checked;
      });
    }
  };

  document.addEventListener("DOMContentLoaded", () => {
    tick();
    chooseAll();
    setInterval(tick, 1000);
    document.body.addEventListener("htmx:afterSwap", tick);
    document.body.addEventListener("htmx:afterRequest", (event) => lost(!event.detail.successful));
  });
})();
