"use strict";
// 1 · the queries: filters and thumbnails.

const found = (q, network) => q.lists[network][state.list].first === 1;
const FILTERS = {
  all: ["all, in their order", () => true],
  "found-missed": [
    "found (at rank 1) by one network, missed by another",
    (q) => found(q, Number($("found-by").value)) && !found(q, Number($("missed-by").value)),
  ],
  hardest: ["hardest first", () => true],
  occluded: ["occluded: over 5 % hidden", (q) => q.occluded > 0.05],
};

function fillFilters() {
  const usable = Object.keys(FILTERS).filter((name) => {
    if (name === "found-missed") return data.labelled && data.networks.length > 1;
    if (name === "occluded") return data.queries.some((q) => q.occluded !== null);
    return name === "all" || data.labelled;
  });
  for (const name of usable) $("filter").append(new Option(FILTERS[name][0], name));
  data.networks.forEach((network, k) => {
    $("found-by").append(new Option(network.heading, k, k === 0, k === 0));
    $("missed-by").append(new Option(network.heading, k, k === 1, k === 1));
  });
  fillCameras("query-camera", data.queries.map((q) => q.camera));
  fillCameras("match-camera", data.queries.flatMap((q) => q.match_cameras));
  $("search").parentElement.hidden = !data.labelled;
  for (const id of ["filter", "found-by", "missed-by", "query-camera", "match-camera", "search"]) {
    $(id).addEventListener("input", showGrid);
  }
}

function fillCameras(id, cameras) {
  $(id).append(new Option("any", ""));
  const each = [...new Set(cameras)].sort((a, b) => a - b);
  for (const camera of each) $(id).append(new Option(camera, camera));
  $(id).parentElement.hidden = !data.labelled || !data.camera_rule;
}

/** Mean average precision of a query over the networks, for the order "hardest first". */
function meanPrecision(q) {
  const values = q.lists.map((lists) => lists[state.list].ap);
  return values.reduce((sum, ap) => sum + ap, 0) / values.length;
}

function filteredQueries() {
  const [, keep] = FILTERS[$("filter").value];
  const from = $("query-camera").value;
  const to = $("match-camera").value;
  const identity = $("search").value.trim();
  const kept = data.queries.filter(
    (q) =>
      keep(q) &&
      (!from || q.camera === Number(from)) &&
      (!to || q.match_cameras.includes(Number(to))) &&
      (!identity || String(q.id).startsWith(identity.replace(/^0+(?=.)/, ""))),
  );
  if ($("filter").value === "hardest") kept.sort((a, b) => meanPrecision(a) - meanPrecision(b));
  return kept;
}

let gridIsOf = ""; // the list that its filters looked at
function showGrid() {
  gridIsOf = state.list;
  $("found-missed").hidden = $("filter").value !== "found-missed";
  shownQueries = filteredQueries();
  const of = data.queries.length;
  const whole = of < data.total ? ` (the test set has ${data.total})` : "";
  $("count").textContent = shownQueries.length
    ? `${shownQueries.length} of ${of} queries${whole}`
    : "No query fits: widen the filters.";
  showFirst();
  $("grid").replaceChildren(
    ...shownQueries.map((q) => {
      const label = data.labelled
        ? `Query ${q.name}: identity ${q.id}${inCamera(q.camera)}, ${REASONS[q.reason]}`
        : `Query ${q.name}`;
      const camera = data.camera_rule ? ` · c${q.camera}` : "";
      const caption = data.labelled ? `${q.id}${camera}` : q.name.slice(0, 8);
      return make(
        "li",
        {},
        make(
          "button",
          {
            type: "button",
            "aria-label": label,
            title: label,
            "data-query": q.name,
            "aria-current": q.name === state.query ? "true" : null,
            click: () => choose({ query: q.name, without: "", pair: null }),
          },
          make("img", { src: q.file, alt: "", loading: "lazy" }),
          caption,
        ),
      );
    }),
  );
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

const REASONS = {
  "evenly spaced": "one of those evenly spaced over the test set",
  differ: "the networks differ most on it",
  hard: "one of the hardest",
};

/** The query before or after the present one, among those shown. */
function step(by) {
  if (!shownQueries.length) return;
  const place = shownQueries.findIndex((q) => q.name === state.query);
  const next = place < 0 ? 0 : (place + by + shownQueries.length) % shownQueries.length;
  choose({ query: shownQueries[next].name, without: "", pair: null });
}
