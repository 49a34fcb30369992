"use strict";
// The controls above the lists, and the keys.

function showControls() {
  for (const input of document.querySelectorAll("#lists input[type=radio]")) {
    if (input.name !== "missing") input.checked = String(state[input.name]) === input.value;
  }
  for (const input of document.querySelectorAll("input[name=map]")) {
    input.parentElement.hidden = !hasMap(input.value);
  }
  const withMaps = details.views.length > 0;
  $("maps").hidden = !withMaps && !details.masks.query;
  $("stages").hidden = $("heat").hidden = !withMaps;
  const reranked = document.querySelector("input[name=list][value=reranked]");
  reranked.disabled = Boolean(state.without) || !canRerank();
  $("order-note").textContent = orderNote();
  const hasStages = ["cam", "attention"].includes(state.map);
  for (const input of document.querySelectorAll("input[name=stage]")) input.disabled = !hasStages;
  $("stage-note").textContent = hasStages ? "" : NO_STAGES[state.map];
  $("opacity").value = state.opacity;
  document.documentElement.style.setProperty("--opacity", state.opacity / 100);
  showMissing();
  if (withMaps) showTemperature();
}

const NO_STAGES = {
  none: "Stages belong to activation maps and attention weights.",
  parts: "Stages belong to activation maps and attention weights.",
  similarity: "The similarity is of stage 4, which retrieval pools.",
};

function orderNote() {
  if (!canRerank()) return data.why_not_reranked;
  if (state.without) return "Plain only: re-ranking would change all queries when one changes.";
  return "Re-ranking: k-reciprocal encoding (k1 20, k2 6, λ 0.3); made without junk.";
}

function showMissing() {
  const parts = query().parts;
  $("missing").hidden = !data.queries.some((q) => q.parts.length);
  $("missing-note").textContent = parts.length
    ? "The picture is rendered again without it, and its vector made anew."
    : noParts();
  const radios = ["", ...parts].map((part) => {
    const input = make("input", { type: "radio", name: "missing", value: part });
    input.checked = part === state.without;
    input.addEventListener("change", () => choose({ without: part, pair: null }));
    return make("label", {}, input, ` ${part || "nothing"}`);
  });
  const focused = document.activeElement?.name === "missing";
  $("missing-parts").replaceChildren(...(parts.length ? radios : []));
  if (focused) $("missing-parts").querySelector("input:checked")?.focus();
}

/** Why this query has no part to remove. */
function noParts() {
  const least = 100 * data.least_removable;
  return (
    `No part of this query can be removed: each of ${data.removable.join(", ")} ` +
    `is missing or fills less than ${least} % of the picture.`
  );
}

/** Average precision of the query without each of its parts: a row for each part. */
function showMissingTable() {
  const parts = query().parts;
  $("missing-table").hidden = !data.labelled || !parts.length;
  if ($("missing-table").hidden) return;
  const row = (head, lists, before) =>
    make(
      "tr",
      {},
      make("th", { scope: "row" }, head),
      ...lists.map((list, k) => {
        const change = before && list.ap !== null ? list.ap - before[k].ap : null;
        const sign = digits(Math.abs(change ?? 0)) === digits(0) ? "±" : change < 0 ? "−" : "+";
        const words = change === null ? "" : ` (${sign}${digits(Math.abs(change))})`;
        return make("td", {}, `${digits(list.ap)}${words}`);
      }),
    );
  const whole = query().lists.map((lists) => lists.plain);
  $("missing-rows").replaceChildren(
    make("caption", {}, "AP of this query without each part (plain lists; in brackets the change)"),
    make(
      "thead",
      {},
      make("tr", {}, ...["", ...data.networks.map((n) => n.heading)].map((head) => make(head ? "th" : "td", head ? { scope: "col" } : {}, head))),
    ),
    make(
      "tbody",
      {},
      row("nothing removed", whole),
      ...parts.map((part) => row(`without ${part}`, details.missing[part].lists, whole)),
    ),
  );
}

/** What the slider's marks are for the first network's query: [name, value of state.t, words]. */
function temperatureMarks() {
  const facts = data.networks[0].facts;
  const views = details.views[0];
  const scores = scoresOf(views.query[state.without], views.sizes, state.stage);
  const channels = facts.channels[state.stage - 1];
  const like = temperatureLikeL1(scores);
  return [
    [`eq. 1 (T = 1)`, 1],
    [`softmax_mean (T = ${channels} channels)`, channels],
    [`l1 (A / ΣA, the released code; as wide as T ≈ ${like.toPrecision(3)})`, "l1", like],
    ["each as it was trained", "own"],
  ];
}

function temperatureInWords() {
  if (state.t === "l1") return "l1";
  if (state.t === "own") return "as trained";
  if (state.t === 0) return "T → 0";
  if (state.t === Infinity) return "T → ∞";
  return `T = ${Number(state.t.toPrecision(3))}`;
}

function showTemperature() {
  const marks = temperatureMarks();
  const l1 = marks[2][2];
  // Each as it was trained is no place on the slider: it stays where it is.
  if (state.t !== "own") $("temperature").value = positionAt(state.t === "l1" ? l1 : state.t);
  const words = temperatureInWords();
  $("temperature-value").textContent = words;
  $("temperature").setAttribute("aria-valuetext", words);
  $("ticks").replaceChildren(
    ...marks.slice(0, 3).map(([name, t, like]) => {
      const share = positionAt(like ?? t) / STEPS;
      const tick = make("span", { class: t === "l1" ? "above" : "" }, name.split(/[ ,]*[(,]/)[0]);
      // The thumb is 16 pixels wide, and its middle does not reach the ends of the track.
      tick.style.left = `calc(8px + ${share} * (100% - 16px))`;
      return tick;
    }),
  );
  const focused = [...$("marks").children].indexOf(document.activeElement);
  $("marks").replaceChildren(
    ...marks.map(([name, t]) =>
      make(
        "button",
        {
          type: "button",
          "aria-pressed": String(state.t === t),
          click: () => choose({ t, map: "attention" }),
        },
        name,
      ),
    ),
  );
  if (focused >= 0) $("marks").children[focused].focus();
}

/** Another temperature: only maps and their numbers change, so the pictures stay. */
function slide(t) {
  state.t = t;
  showTemperature();
  for (const canvas of $("columns").querySelectorAll("canvas")) {
    const { network, image } = canvas.parentElement.dataset;
    canvas.replaceWith(canvasOf(mapOver(Number(network), image === "" ? null : Number(image))));
  }
  document.querySelectorAll(".said").forEach((said, k) => said.replaceChildren(...mapSentences(k)));
  writeAddressSoon();
}

function listen() {
  for (const input of document.querySelectorAll("#order input, #maps input[type=radio], #stages input")) {
    input.addEventListener("change", () => {
      const value = input.name === "stage" ? Number(input.value) : input.value;
      choose({ [input.name]: value });
    });
  }
  $("opacity").addEventListener("input", () => {
    state.opacity = Number($("opacity").value);
    document.documentElement.style.setProperty("--opacity", state.opacity / 100);
    writeAddressSoon();
  });
  $("temperature").addEventListener("input", () => {
    const t = temperatureAt(Number($("temperature").value));
    if (state.map === "attention" && state.t !== "own") slide(t);
    else choose({ t, map: "attention" });
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const field = event.target.closest?.("input, select, textarea");
    const writes = field && field.type !== "radio" && field.type !== "range";
    if (writes) return;
    if (event.key === "ArrowLeft" && !field) step(-1);
    else if (event.key === "ArrowRight" && !field) step(1);
    else if ("1234".includes(event.key)) {
      const map = state.map === "attention" ? "attention" : "cam";
      if (details?.views.length) choose({ stage: Number(event.key), map });
    } else if (event.key.toLowerCase() === "s") {
      if (details?.views.length) choose({ map: "similarity" });
    } else if (event.key.toLowerCase() === "r") {
      if (!state.without && canRerank()) {
        choose({ list: state.list === "plain" ? "reranked" : "plain" });
      }
    } else return;
    event.preventDefault();
  });
}
