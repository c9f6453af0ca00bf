// One image after the other, or one pair: look, answer, next. The same file serves the web application and the offline page.
"use strict";

/**
 * @param state  order: [[section, item], ...]; saved: {item: {answer, likert, milliseconds}}; kind, answers, likert, goBack: the design.
 * @param save   async ({item, answer, likert, milliseconds}); resolves when the answer is safe. An error with `final` is not tried again.
 */
window.readImages = (state, save) => {
  const IDLE = 120000; // milliseconds without a hand on mouse or keyboard, after which the reader is taken to be away
  const AGAIN = 2000; // between tries to save
  const VIEW = { zoom: 1, x: 0, y: 0, level: 128, width: 255, inverted: false };
  const id = (name) => document.getElementById(name);
  const stage = id("stage");
  const choices = [...document.querySelectorAll("[data-answer]")];
  const grades = [...document.querySelectorAll("[data-likert]")];
  const pair = state.kind === "2afc";
  const parts = [...new Set(state.order.map(([section]) => section))];
  const saved = { ...state.saved };
  const loaded = new Map(); // file name -> image that is being fetched or is there
  const view = { ...VIEW };

  let place = 0; // of the item shown
  let chosen = { answer: null, likert: null };
  let spent = 0; // milliseconds of earlier visits to it
  let again = false; // it had an answer when it was shown
  let busy = true; // an image is on its way, or an answer
  let paused = false;
  let pending = Promise.resolve(); // saves, one after the other

  // -- time: of this visit, without pauses -----------------------------------------------------------------------------------------------------
  const clock = {
    total: 0,
    since: null,
    touched: 0,
    run() {
      if (this.since === null && !paused && !document.hidden && !busy) this.since = this.touched = performance.now();
    },
    stop(at = performance.now()) {
      if (this.since !== null) this.total += Math.max(0, at - this.since);
      this.since = null;
    },
    read() {
      return this.total + (this.since === null ? 0 : performance.now() - this.since);
    },
    clear() {
      this.stop();
      this.total = 0;
    },
  };
  const touch = () => (clock.touched = performance.now());
  for (const event of ["pointermove", "pointerdown", "keydown", "wheel"]) addEventListener(event, touch, { passive: true, capture: true });
  document.addEventListener("visibilitychange", () => (document.hidden ? clock.stop() : clock.run()));
  setInterval(() => {
    if (clock.since !== null && performance.now() - clock.touched > IDLE) pause(clock.touched);
  }, 1000);

  // A dialog over everything, the image hidden; what lies behind it takes no key and no focus.
  function veil(name, on) {
    id(name).hidden = !on;
    stage.classList.toggle("veiled", on);
    for (const behind of [stage.parentElement, stage.parentElement.previousElementSibling, id("answers")]) behind.inert = on;
    const first = on ? id(name).querySelector("button") : stage;
    first?.focus({ preventScroll: true });
  }

  function pause(at) {
    if (paused || !id("done").hidden) return;
    clock.stop(at);
    paused = true;
    veil("paused", true);
  }

  function resume() {
    paused = false;
    veil("paused", false);
    clock.run();
  }

  // -- images ---------------------------------------------------------------------------------------------------------------------------------
  const files = (number) => {
    const item = state.order[number][1];
    return pair ? [`${item}-a.png`, `${item}-b.png`] : [`${item}.png`];
  };

  function load(name) {
    if (!loaded.has(name)) {
      const image = new Image();
      image.draggable = false;
      image.src = `images/${name}`;
      image.ready = image.decode();
      image.ready.catch(() => loaded.delete(name));
      loaded.set(name, image);
    }
    return loaded.get(name);
  }

  async function show(number) {
    place = number;
    busy = true;
    clock.clear();
    const [section, item] = state.order[place];
    const before = saved[item];
    chosen = { answer: before ? before.answer : null, likert: before ? before.likert : null };
    spent = before ? before.milliseconds || 0 : 0;
    again = Boolean(before);
    Object.assign(view, { zoom: 1, x: 0, y: 0 });
    stage.replaceChildren();
    const names = files(place);
    id("part").textContent = parts.length > 1 ? `Part ${parts.indexOf(section) + 1} of ${parts.length}` : "";
    id("count").textContent = `${pair ? "Pair" : "Image"} ${place + 1} of ${state.order.length}`;
    id("progress").value = Object.keys(saved).length;
    mark();
    let images;
    for (;;) {
      try {
        images = names.map(load);
        await Promise.all(images.map((image) => image.ready));
        break;
      } catch {
        note("The image did not arrive. Trying again …", true);
        await new Promise((then) => setTimeout(then, AGAIN));
      }
    }
    if (place !== number) return;
    images.forEach((image, side) => {
      const frame = document.createElement("div");
      frame.className = "frame";
      image.alt = pair ? `${["Left", "Right"][side]} image of pair ${place + 1}` : `Image ${place + 1}`;
      if (pair) frame.append(Object.assign(document.createElement("span"), { className: "side", textContent: "AB"[side] }));
      frame.append(image);
      stage.append(frame);
    });
    for (const name of loaded.keys()) if (!names.includes(name)) loaded.delete(name);
    if (place + 1 < state.order.length) files(place + 1).forEach(load);
    busy = false;
    if (id("note").classList.contains("bad")) note("");
    look();
    mark();
    clock.run();
  }

  // -- answers --------------------------------------------------------------------------------------------------------------------------------
  const open = () => state.order.findIndex(([, item]) => !(item in saved)); // the first without an answer, or -1
  const answered = () => state.order[place][1] in saved;

  function mark() {
    for (const button of choices) button.setAttribute("aria-pressed", String(button.dataset.answer === chosen.answer));
    for (const button of grades) button.setAttribute("aria-pressed", String(Number(button.dataset.likert) === chosen.likert));
    id("back").disabled = place === 0;
    id("next").disabled = !answered();
  }

  function note(words, bad = false) {
    id("note").textContent = words;
    id("note").classList.toggle("bad", bad);
  }

  // Saves an answer, however long it takes; false where the server will not have it.
  async function write(answer) {
    for (;;) {
      try {
        await save(answer);
        break;
      } catch (error) {
        if (error.final) {
          note(error.message, true);
          return false;
        }
        note("Not saved yet. Trying again …", true);
        await new Promise((then) => setTimeout(then, AGAIN));
      }
    }
    saved[answer.item] = answer;
    note("Saved");
    return true;
  }

  async function choose(change) {
    if (busy || paused) return;
    chosen = { ...chosen, ...change };
    mark();
    if (chosen.answer === null || (grades.length && chosen.likert === null)) return;
    // Of two answers, who came back may want to change both: the second key must not fall on the next image.
    const stays = again && grades.length > 0;
    if (!stays) clock.stop();
    busy = !stays; // refused, it stays so: nothing more can be answered on this page
    const answer = { item: state.order[place][1], ...chosen, milliseconds: Math.min(86400000, Math.round(spent + clock.read())) };
    pending = pending.then(() => write(answer));
    if ((await pending) && !stays) forth();
  }

  function forth() {
    id("progress").value = Object.keys(saved).length;
    if (open() === -1 && (place + 1 === state.order.length || !state.goBack)) return finish();
    show(state.goBack ? place + 1 : open());
  }

  function back() {
    if (busy || paused || !state.goBack || place === 0) return;
    show(place - 1);
  }

  function next() {
    if (!busy && !paused && state.goBack && answered()) forth();
  }

  function finish() {
    busy = true;
    clock.stop();
    veil("done", true);
  }

  function reopen() {
    veil("done", false);
    show(state.order.length - 1);
  }

  // -- the view -------------------------------------------------------------------------------------------------------------------------------
  const transfer = document.querySelector("#window feComponentTransfer").children;

  // A linear window: grey g of 0 to 255 is shown as ((g - level) / width + 0.5) of white, clipped (DICOM PS3.3 C.11.2.1.3.2).
  function look() {
    const slope = 255 / view.width;
    const intercept = 0.5 - (view.level === VIEW.level ? 127.5 : view.level) / view.width;
    for (const channel of transfer) {
      channel.setAttribute("slope", view.inverted ? -slope : slope);
      channel.setAttribute("intercept", view.inverted ? 1 - intercept : intercept);
    }
    const plain = view.level === VIEW.level && view.width === VIEW.width && !view.inverted;
    for (const image of stage.querySelectorAll("img")) {
      image.style.filter = plain ? "" : "url(#window)";
      image.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.zoom})`;
    }
    stage.classList.toggle("moves", view.zoom > 1);
    for (const name of ["zoom", "level", "width"]) id(name).value = view[name];
    id("zoom-shown").textContent = `${view.zoom.toFixed(1)} ×`;
    id("level-shown").textContent = Math.round(view.level);
    id("width-shown").textContent = Math.round(view.width);
    id("invert").setAttribute("aria-pressed", String(view.inverted));
  }

  const between = (low, value, high) => Math.min(high, Math.max(low, value));

  function adjust(change) {
    Object.assign(view, change);
    view.zoom = between(1, view.zoom, 8);
    view.level = between(0, view.level, 255);
    view.width = between(8, view.width, 510);
    const frame = stage.querySelector(".frame");
    const [w, h] = frame ? [frame.clientWidth, frame.clientHeight] : [0, 0];
    view.x = between((-w * (view.zoom - 1)) / 2, view.x, (w * (view.zoom - 1)) / 2);
    view.y = between((-h * (view.zoom - 1)) / 2, view.y, (h * (view.zoom - 1)) / 2);
    look();
  }

  const zoomBy = (factor) => adjust({ zoom: view.zoom * factor, x: view.x * factor, y: view.y * factor });

  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoomBy(event.deltaY < 0 ? 1.15 : 1 / 1.15);
  }, { passive: false });
  // As at most workstations: the left button moves, the right one windows.
  stage.addEventListener("contextmenu", (event) => event.preventDefault());
  stage.addEventListener("pointerdown", (event) => stage.setPointerCapture(event.pointerId));
  stage.addEventListener("pointermove", (event) => {
    if (event.buttons & 2) adjust({ width: view.width + event.movementX, level: view.level + event.movementY });
    else if (event.buttons & 1 && view.zoom > 1) adjust({ x: view.x + event.movementX, y: view.y + event.movementY });
  });

  // -- keys and buttons -----------------------------------------------------------------------------------------------------------------------
  const invert = () => adjust({ inverted: !view.inverted });
  const reset = () => adjust({ ...VIEW });
  const keys = {
    Backspace: back, Enter: next, i: invert, 0: reset, p: () => pause(),
    "+": () => zoomBy(1.15), "=": () => zoomBy(1.15), "-": () => zoomBy(1 / 1.15),
    ArrowUp: () => adjust({ level: view.level - 6 }), ArrowDown: () => adjust({ level: view.level + 6 }),
    ArrowLeft: () => adjust({ width: view.width + 12 }), ArrowRight: () => adjust({ width: view.width - 12 }),
  };
  const shifted = {
    ArrowUp: () => adjust({ y: view.y + 40 }), ArrowDown: () => adjust({ y: view.y - 40 }),
    ArrowLeft: () => adjust({ x: view.x + 40 }), ArrowRight: () => adjust({ x: view.x - 40 }),
  };
  const letters = { real: "r", fake: "f", a: "a", b: "b" };
  for (const answer of state.answers) keys[letters[answer]] = () => choose({ answer });
  for (const grade of state.likert) keys[grade] = () => choose({ likert: Number(grade) });

  document.addEventListener("keydown", (event) => {
    const at = event.target;
    if (event.ctrlKey || event.altKey || event.metaKey || event.repeat && (event.key.length === 1 || event.key === "Enter")) return;
    // What has the focus uses some keys itself: a button Enter, a slider arrows.
    if (event.key === "Enter" && at.closest("button, a, input")) return;
    if (event.key.startsWith("Arrow") && at.type === "range") return;
    if (paused || !id("done").hidden || (event.key.length === 1 && !id("keys-on").checked)) return;
    const act = event.shiftKey && shifted[event.key] ? shifted[event.key] : keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  for (const button of choices) button.addEventListener("click", () => choose({ answer: button.dataset.answer }));
  for (const button of grades) button.addEventListener("click", () => choose({ likert: Number(button.dataset.likert) }));
  for (const name of ["zoom", "level", "width"]) id(name).addEventListener("input", (event) => adjust({ [name]: Number(event.target.value) }));
  const acts = { back, next, invert, reset, pause: () => pause(), resume, "done-back": reopen };
  for (const [name, act] of Object.entries(acts)) id(name)?.addEventListener("click", () => act());

  if (open() === -1) finish();
  else show(open());
};
