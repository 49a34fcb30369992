"use strict";
// 1 · the queries: filters and thumbnails.

const found = (q, network) => q.lists[network][state.list].first === 1;
const FILTERS = {
  all: "all, in their order",
  hardest: "all, hardest first",
  occluded: "the occluded ones",
};

// Why the page has a query: its sign, and what it means.
const REASONS = {
  "evenly spaced": ["=", "evenly spaced over the test set"],
  differ: ["≠", "the networks differ most on it"],
  hard: ["!", "one of the hardest"],
};

function fillFilters() {
  const usable = Object.keys(FILTERS).filter((name) => {
    if (name === "occluded") return data.queries.some((q) => q.occluded !== null);
    return name === "all" || data.labelled;
  });
  for (const name of usable) $("filter").append(new Option(FILTERS[name], name));
  $("why").append(new Option("any", ""));
  for (const [reason, [sign, words]] of Object.entries(REASONS)) {
    if (data.queries.some((q) => q.reason === reason)) $("why").append(new Option(`${sign} ${words}`, reason));
  }
  $("why").parentElement.hidden = $("why").length < 3;
  for (const side of ["found", "missed"]) {
    $(side).hidden = !data.labelled;
    data.networks.forEach((network, k) => {
      const box = make("input", { type: "checkbox", value: k, input: () => tick(side, k, box.checked) });
      $(side).append(make("label", {}, box, ` ${network.heading}`));
    });
  }
  fillCameras("camera", data.queries.map((q) => q.camera));
  fillCameras("match", data.queries.flatMap((q) => q.match_cameras));
  $("identity").parentElement.hidden = !data.labelled;
  for (const id of ["filter", "why", "camera", "match", "identity"]) {
    $(id).addEventListener("input", () => filterBy({ [id]: $(id).value.trim() }));
  }
  $("widen").addEventListener("click", () => {
    filterBy({ filter: "all", why: "", found: "", missed: "", camera: "", match: "", identity: "" });
  });
  $("first-that-fits").addEventListener("click", () => goTo(shownQueries[0]));
  $("before").addEventListener("click", () => step(-1));
  $("after").addEventListener("click", () => step(1));
}

function fillCameras(id, cameras) {
  $(id).append(new Option("any", ""));
  const each = [...new Set(cameras)].sort((a, b) => a - b);
  for (const camera of each) $(id).append(new Option(camera, camera));
  $(id).parentElement.hidden = !data.labelled || !data.camera_rule;
}

/** Found or missed by a network, or neither of them; never both. */
function tick(side, network, on) {
  const change = {};
  for (const one of ["found", "missed"]) {
    const others = state[one].replace(network, "");
    change[one] = one === side && on ? [...others, network].sort().join("") : others;
  }
  filterBy(change);
}

function filterBy(change) {
  Object.assign(state, change);
  showGrid();
  writeAddressSoon();
}

/** The filters as they stand in `state`. */
function showFilters() {
  for (const id of ["filter", "why", "camera", "match"]) $(id).value = state[id];
  if (document.activeElement !== $("identity")) $("identity").value = state.identity;
  for (const side of ["found", "missed"]) {
    for (const box of $(side).querySelectorAll("input")) box.checked = state[side].includes(box.value);
  }
  const names = ["why", "found", "missed", "camera", "match", "identity"];
  $("widen").hidden = state.filter !== "occluded" && names.every((name) => state[name] === "");
}

/** Mean average precision of a query over the networks, for the order "hardest first". */
function meanPrecision(q) {
  const values = q.lists.map((lists) => lists[state.list].ap);
  return values.reduce((sum, ap) => sum + ap, 0) / values.length;
}

function filteredQueries() {
  const { camera, match, identity, why } = state;
  const kept = data.queries.filter(
    (q) =>
      (state.filter !== "occluded" || q.occluded > data.least_occluded) &&
      (!why || q.reason === why) &&
      [...state.found].every((k) => found(q, k)) &&
      ![...state.missed].some((k) => found(q, k)) &&
      (!camera || q.camera === Number(camera)) &&
      (!match || q.match_cameras.includes(Number(match))) &&
      (!identity || String(q.id).startsWith(identity.replace(/^0+(?=.)/, ""))),
  );
  if (state.filter === "hardest") kept.sort((a, b) => meanPrecision(a) - meanPrecision(b));
  return kept;
}

const FILTER_NAMES = ["list", "filter", "why", "found", "missed", "camera", "match", "identity"];
const filtersInWords = () => FILTER_NAMES.map((name) => state[name]).join("/");
let gridIsOf = ""; // the filters, and the list that they looked at
function showGrid() {
  gridIsOf = filtersInWords();
  showFilters();
  shownQueries = filteredQueries();
  const of = data.queries.length;
  const whole = of < data.total ? ` (the test set has ${data.total})` : "";
  $("count").textContent = shownQueries.length
    ? `${shownQueries.length} of ${of} queries${whole}`
    : "No query fits: widen the filters.";
  showFirst();
  const withSigns = !$("why").parentElement.hidden;
  $("grid").replaceChildren(...shownQueries.map((q) => make("li", {}, thumbnailOf(q, withSigns))));
  markChosen();
}

/** A query of the grid. */
function thumbnailOf(q, withSign) {
  const [sign, why] = REASONS[q.reason];
  const label = data.labelled
    ? `Query ${q.name}: identity ${q.id}${inCamera(q.camera)}; chosen because: ${why}`
    : `Query ${q.name}`;
  const camera = data.camera_rule ? ` · c${q.camera}` : "";
  const caption = data.labelled ? `${q.id}${camera}` : q.name.slice(0, 8);
  return make(
    "button",
    {
      type: "button",
      "aria-label": label,
      title: label,
      "data-query": q.name,
      click: () => goTo(q),
    },
    make("img", { src: q.file, alt: "", loading: "lazy" }),
    withSign ? make("span", { class: "why", "aria-hidden": "true" }, sign) : null,
    caption,
  );
}

/** Mark the chosen query in the grid; say so if the filters leave it out. */
function markChosen() {
  for (const button of $("grid").querySelectorAll("button")) {
    const chosen = button.dataset.query === state.query;
    if (chosen) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
    if (chosen) scrollInside($("grid"), button);
  }
  const isShown = shownQueries.some((q) => q.name === state.query);
  $("left-out").hidden = isShown;
  $("left-out-words").textContent = isShown
    ? ""
    : `The lists below are of query ${state.query}, which these filters leave out.`;
  $("first-that-fits").hidden = !shownQueries.length;
  $("bar-name").textContent = `Query ${state.query}`;
}

/** Whom each network finds first for the queries that the filters leave. */
function showFirst() {
  $("at-rank-1").hidden = !data.labelled || !shownQueries.length;
  const said = data.networks.map((network, k) => {
    const counts = { hit: 0, alike: 0, miss: 0 };
    for (const q of shownQueries) {
      const mark = markOf(q, firstOf(q, q.lists[k][state.list].images));
      if (mark in counts) counts[mark] += 1;
    }
    return make("li", {}, `${network.heading}: ${whomFirst(counts)}`);
  });
  $("at-rank-1-of").replaceChildren(...said);
}

/** Choose a query of the grid, and bring its lists into view. */
async function goTo(q) {
  await choose({ query: q.name, without: "", pair: null });
  const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;
  $("lists").scrollIntoView({ behavior: isStill ? "auto" : "smooth", block: "start" });
}

/** The query before or after the present one, among those shown. */
function step(by) {
  if (!shownQueries.length) return;
  const place = shownQueries.findIndex((q) => q.name === state.query);
  const next = place < 0 ? 0 : (place + by + shownQueries.length) % shownQueries.length;
  choose({ query: shownQueries[next].name, without: "", pair: null });
}
