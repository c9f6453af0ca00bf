// The viewer without a server: answers in this browser's storage, and a CSV file at the end.
"use strict";
(() => {
  const state = JSON.parse(document.getElementById("state").textContent);
  const id = (name) => document.getElementById(name);
  const COLUMNS = ["study", "reader", "section", "item", "answer", "likert", "milliseconds", "changes", "role", "years"];
  let kept = null;

  const place = (code) => `medgan-readers/${state.study}/${code}`;

  function problem(words) {
    id("problem").textContent = words;
    id("problem").hidden = !words;
    if (words) id("problem").scrollIntoView();
  }

  async function digest(...words) {
    const bytes = await crypto.subtle.digest("SHA-256", new TextEncoder().encode([state.study, ...words].join("/")));
    return Array.from(new Uint8Array(bytes), (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  async function sorted(things, words) {
    const keyed = await Promise.all(things.map(async (thing) => [await digest(...words(thing)), thing]));
    return keyed.sort((a, b) => (a[0] < b[0] ? -1 : 1)).map(([, thing]) => thing);
  }

  // The same order as the server's for the same reader (Study.order).
  async function order(reader) {
    const result = [];
    for (const section of await sorted(state.sections, (one) => [reader, "section", one.key])) {
      const size = section.items.length / section.blocks;
      const blocks = Array.from({ length: section.blocks }, (_, number) => number);
      for (const block of await sorted(blocks, (number) => [reader, "block", section.key, number])) {
        const items = section.items.slice(block * size, (block + 1) * size);
        for (const item of await sorted(items, (one) => [reader, "item", one])) result.push([section.key, item]);
      }
    }
    return result;
  }

  function keep() {
    localStorage.setItem(place(kept.reader), JSON.stringify(kept));
    localStorage.setItem(place(""), kept.reader);
  }

  async function save(answer) {
    const { item, ...rest } = answer;
    const old = kept.answers[item];
    const changed = old && (old.answer !== rest.answer || old.likert !== rest.likert);
    kept.answers[item] = { ...rest, changes: old ? old.changes + (changed ? 1 : 0) : 0 };
    try {
      keep();
    } catch {
      throw new Error("This browser could not keep the answer. Save the answers to a file now.");
    }
  }

  function csv() {
    const sections = Object.fromEntries(state.sections.flatMap((section) => section.items.map((item) => [item, section.key])));
    const rows = Object.entries(kept.answers).map(([item, one]) => ({ ...one, item, section: sections[item], study: state.study, reader: kept.reader, role: kept.role, years: kept.years }));
    const cell = (value) => (value === null || value === undefined ? "" : /[",\n]/.test(String(value)) ? `"${String(value).replaceAll('"', '""')}"` : String(value));
    return [COLUMNS.join(","), ...rows.map((row) => COLUMNS.map((name) => cell(row[name])).join(","))].join("\n") + "\n";
  }

  function download() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
    link.download = `answers-${state.study}-${kept.reader}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  async function start(event) {
    event.preventDefault();
    const reader = id("reader").value.trim();
    const years = Number(id("years").value.trim().replace(",", "."));
    if (!(years >= 0 && years <= state.mostYears)) return problem(`Give your years of experience as a number from 0 to ${state.mostYears}.`);
    if (!window.crypto || !crypto.subtle) return problem("This browser is too old for this page. Use a recent Chrome, Edge or Firefox.");
    try {
      kept = JSON.parse(localStorage.getItem(place(reader))) || { reader, role: id("role").value, years, answers: {} };
      keep();
    } catch {
      return problem("This browser does not keep answers, as in a private window. Open the page in an ordinary window of Chrome, Edge or Firefox.");
    }
    document.querySelectorAll(".save-answers").forEach((button) => button.addEventListener("click", download));
    id("start").hidden = true;
    id("viewer").hidden = false;
    id("who").textContent = `Reader ${reader}`;
    window.readImages({ ...state, order: await order(reader), saved: kept.answers }, save);
  }

  // Where storage is blocked, asking for it throws.
  try {
    id("reader").value = localStorage.getItem(place("")) || "";
  } catch {
    problem("This browser does not keep answers, as in a private window. Open the page in an ordinary window of Chrome, Edge or Firefox.");
  }
  id("about").addEventListener("submit", start);
})();
