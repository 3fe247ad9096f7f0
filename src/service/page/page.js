"use strict";
// The page is complete without this script. With it, the page renews itself, and a time is chosen by drawing over the bars.
(() => {
  const every = 10_000;
  const chosen = new URLSearchParams(location.search).has("from");
  let drawing = false;
  let begun = null;
  let timer = 0;

  function say(text) {
    document.title = "No answer · Countersign";
    document.getElementById("state").className = "today";
    document.querySelector("#state h1").textContent = text;
  }

  async function renew() {
    if (document.hidden || begun) return;
    try {
      const headers = { "X-Countersign-Renews": "1" };
      const answer = await fetch(location.href, { cache: "no-store", headers, signal: AbortSignal.timeout(every) });
      if (answer.status === 401) {
        clearInterval(timer);
        return say("The token has changed. Load the page again.");
      }
      if (!answer.ok) throw new Error(answer.statusText);
      const next = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (begun) return;
      document.title = next.title;
      for (const fresh of next.querySelectorAll("#state, #domains, #time, #who, #parts, #decisions")) {
        const old = document.getElementById(fresh.id);
        // What somebody reads with the keyboard, or types into, stays.
        if (!old || old.outerHTML === fresh.outerHTML || (fresh.id !== "state" && old.contains(document.activeElement))) continue;
        const open = [...old.querySelectorAll("details")].map((one) => one.open);
        old.replaceWith(document.adoptNode(fresh));
        document.getElementById(fresh.id).querySelectorAll("details").forEach((one, n) => { one.open = open[n] ?? false; });
      }
    } catch {
      say("The daemon does not answer. The page shows what was last known.");
    }
  }

  if (document.getElementById("state") && !chosen) {
    timer = setInterval(renew, every);
    document.addEventListener("visibilitychange", renew);
  }

  // Bars: the first and the last one between two points.
  const barAt = (chart, event) => {
    const box = chart.getBoundingClientRect();
    const { width } = chart.viewBox.baseVal;
    const x = ((event.clientX - box.left) / box.width) * width;
    const bars = Number(chart.dataset.bars);
    return Math.max(0, Math.min(bars - 1, Math.floor((x / width) * bars)));
  };
  const times = (chart, a, b) => {
    const [first, each] = [Number(chart.dataset.first), Number(chart.dataset.each)];
    return [first + Math.min(a, b) * each, first + (Math.max(a, b) + 1) * each];
  };
  // As the rest of the page: in the time zone of the server.
  const shown = (chart, seconds) => {
    const at = new Date((seconds + Number(chart.dataset.offset)) * 1000);
    return at.toLocaleString("en-GB", { timeZone: "UTC", weekday: "short", hour: "2-digit", minute: "2-digit" });
  };

  document.addEventListener("pointerdown", (event) => {
    const chart = event.target.closest?.("svg.chart");
    if (!chart || event.button !== 0 || event.pointerType === "touch") return;
    begun = { chart, bar: barAt(chart, event), last: null };
    event.preventDefault();
  });
  document.addEventListener("pointermove", (event) => {
    if (!begun) return;
    const { chart, bar } = begun;
    const last = barAt(chart, event);
    if (last === bar && begun.last === null) return;
    begun.last = last;
    drawing = true;
    const wide = chart.viewBox.baseVal.width / Number(chart.dataset.bars);
    const rect = chart.querySelector(".selected");
    rect.setAttribute("x", Math.min(bar, last) * wide);
    rect.setAttribute("width", (Math.abs(bar - last) + 1) * wide);
    const [from, to] = times(chart, bar, last);
    chart.closest("figure").querySelector(".selection").textContent = `${shown(chart, from)} to ${shown(chart, to)}`;
  });
  const end = () => {
    document.querySelectorAll(".chart .selected").forEach((rect) => rect.setAttribute("width", 0));
    document.querySelectorAll(".selection").forEach((text) => { text.textContent = ""; });
    begun = null;
    drawing = false;
  };
  document.addEventListener("pointerup", () => {
    if (!begun) return;
    const { chart, bar, last } = begun;
    if (last !== null) {
      const [from, to] = times(chart, bar, last);
      const link = new URL(location.href);
      link.searchParams.delete("time");
      link.searchParams.set("from", from);
      link.searchParams.set("to", to);
      location.assign(link);
    }
    end();
  });
  document.addEventListener("pointercancel", end);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") end(); });
  // A click that ends a drawing is no click on a bar.
  document.addEventListener("click", (event) => { if (drawing) event.preventDefault(); }, true);
})();
