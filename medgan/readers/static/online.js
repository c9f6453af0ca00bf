// The viewer with the server: an answer counts when the server says that it is on the disk.
"use strict";
(() => {
  const state = JSON.parse(document.getElementById("state").textContent);

  async function save(answer) {
    const reply = await fetch("/answer", {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-CSRF-Token": state.csrf },
      body: JSON.stringify(answer),
    });
    if (reply.ok) return;
    const said = await reply.json().catch(() => ({}));
    const error = new Error(said.problem || "The server did not save this answer.");
    // Worth another try: the server or its database is away, or it was too fast.
    error.final = reply.status < 500 && reply.status !== 429;
    throw error;
  }

  window.readImages(state, save);
})();
