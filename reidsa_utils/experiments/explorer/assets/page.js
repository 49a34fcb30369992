"use strict";
// The explorer's page. All data comes in scripts that call EXPLORER.take(), since a page opened from
// disk may load scripts and pictures and nothing else. What they hold: experiments/explorer.py.

const EXPLORER = {
  taken: {},
  take(name, content) {
    this.taken[name] = content;
  },
};

// ---- what is shown now

const KINDS = ["none", "cam", "similarity", "attention", "parts"];
const state = {
  query: "", // name of the query
  list: "plain", // or "reranked"
  map: "cam", // one of KINDS
  stage: 2,
  opacity: 60, // percent
  t: 1, // temperature: a number, 0 (one-hot), Infinity (uniform), or "l1" (A over its sum)
  without: "", // the part that is left out of the query
  pair: null, // number of the gallery image beside the query; null: the first of each list
};
let data = null; // data/index.js
let details = null; // data/query_N.js of the query that is shown
let shownQueries = []; // what the filters leave, in their order

const $ = (id) => document.getElementById(id);

/** A new element with attributes (a function becomes a listener) and children. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

const digits = (value, n = 3) => (value === null ? "–" : value.toFixed(n));
const matches = (n) => `${n} match${n === 1 ? "" : "es"}`;

// ---- reading the data

/** Load a script of data; gives what it hands to EXPLORER.take() under that name. */
function load(name, file) {
  return new Promise((resolve, reject) => {
    if (name in EXPLORER.taken) return resolve(EXPLORER.taken[name]);
    const script = make("script", { src: file });
    script.addEventListener("load", () => resolve(EXPLORER.taken[name]));
    script.addEventListener("error", () => reject(new Error(`${file} is missing beside this page`)));
    document.head.append(script);
  });
}

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** base64 of gzipped bytes -> ArrayBuffer. */
function unpacked(base64) {
  const stream = new Blob([bytesOf(base64)]).stream();
  return new Response(stream.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

const readDetails = {}; // by number of the query
async function detailsOf(query) {
  if (!(query.number in readDetails)) {
    const name = `query_${query.number}`;
    const bytes = await unpacked(await load(name, `data/${name}.js`));
    readDetails[query.number] = JSON.parse(new TextDecoder().decode(bytes));
    delete EXPLORER.taken[name];
  }
  return readDetails[query.number];
}

/** A number in half precision, as its 16 bits, in double precision. */
function fromHalf(bits) {
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  const sign = bits >> 15 ? -1 : 1;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** One of the maps that packed_maps() of explorer_maps.py wrote: its positive part. */
function unpackedMap(packed, place, offset, positions) {
  const codes = bytesOf(packed.data).subarray(offset, offset + positions);
  return Float64Array.from(codes, (code) => packed.top[place] * (code / 255) ** 2);
}

/** The scores A of one stage (from 1) that packed_scores() wrote. */
function scoresOf(view, sizes, stage) {
  const bytes = bytesOf(view.scores.data);
  const values = new DataView(bytes.buffer);
  const [offset, positions] = placeOf(sizes, stage);
  const scores = new Float64Array(positions);
  for (let i = 0; i < positions; i++) {
    const below = fromHalf(values.getUint16(2 * (offset + i), true));
    scores[i] = view.scores.top[stage - 1] - below * view.scores.range[stage - 1];
  }
  return scores;
}

/** [positions before, positions of] a stage's map among those of some stages. */
function placeOf(sizes, stage, stages = [1, 2, 3, 4]) {
  let offset = 0;
  for (const s of stages) {
    const [h, w] = sizes[s - 1];
    if (s === stage) return [offset, h * w];
    offset += h * w;
  }
  return null;
}

// ---- attention weights (eq. 1)

/** p = softmax(A / T). T = 0 is its limit, one-hot (ties share); Infinity is uniform. */
function softmax(scores, temperature) {
  const top = Math.max(...scores);
  const weights = scores.map((a) => {
    if (temperature === 0) return a === top ? 1 : 0;
    if (temperature === Infinity) return 1;
    return Math.exp((a - top) / temperature);
  });
  return overSum(weights);
}

/** Weights over their sum; uniform where the sum is zero. */
function overSum(weights) {
  let sum = 0;
  for (const w of weights) sum += w;
  return weights.map((w) => (sum > 0 ? w / sum : 1 / weights.length));
}

/** exp of the entropy: over how many positions weights are effectively spread. */
function effectivePositions(p) {
  let entropy = 0;
  for (const w of p) if (w > 0) entropy -= w * Math.log(w);
  return Math.exp(entropy);
}

/** The weights that the slider stands for. */
function attention(scores) {
  if (state.t === "l1") return overSum(scores.map((a) => Math.max(a, 0)));
  return softmax(scores, state.t);
}

/** The temperature at which a softmax is as wide as l1, the released code's A / sum A. */
function temperatureLikeL1(scores) {
  const wanted = effectivePositions(overSum(scores.map((a) => Math.max(a, 0))));
  let low = LOWEST;
  let high = HIGHEST;
  for (let step = 0; step < 60; step++) {
    const middle = (low + high) / 2;
    if (effectivePositions(softmax(scores, 10 ** middle)) < wanted) low = middle;
    else high = middle;
  }
  return 10 ** low;
}

// The slider's ends are the limits, between them it is logarithmic.
const LOWEST = -2;
const HIGHEST = 6;
const STEPS = 1000;
function temperatureAt(position) {
  if (position <= 0) return 0;
  if (position >= STEPS) return Infinity;
  return 10 ** (LOWEST + ((HIGHEST - LOWEST) * position) / STEPS);
}
function positionOf(temperature) {
  if (temperature === 0) return 0;
  if (temperature === Infinity) return STEPS;
  const share = (Math.log10(temperature) - LOWEST) / (HIGHEST - LOWEST);
  return Math.min(STEPS - 1, Math.max(1, Math.round(share * STEPS)));
}

// ---- maps over pictures

// Times an even spread: where the colours end. 6 as in notebook 07; similarity is spread more evenly.
const TOPS = { cam: 6, attention: 6, similarity: 2 };
const MAGMA = (
  "000004 0a0822 1d1147 36106b 51127c 6a1c81 832681 9c2e7f b73779 " +
  "d0416f e75263 f56b5c fc8961 fea772 fec488 fde2a3 fcfdbf"
)
  .split(" ")
  .map((hex) => [0, 2, 4].map((k) => parseInt(hex.slice(k, k + 2), 16)));

/** The colour of a value between 0 and 1: [red, green, blue]. */
function colourOf(value) {
  const place = Math.min(Math.max(value, 0), 1) * (MAGMA.length - 1);
  const left = Math.min(Math.floor(place), MAGMA.length - 2);
  return MAGMA[left].map((c, k) => c + (place - left) * (MAGMA[left + 1][k] - c));
}

/** A canvas with one pixel for each position; values in times an even spread. */
function canvasOf(map) {
  const canvas = make("canvas", { width: map.w, height: map.h, "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  const image = context.createImageData(map.w, map.h);
  map.values.forEach((value, i) => {
    const [red, green, blue] = colourOf(value / TOPS[state.map]);
    image.data.set([red, green, blue, 255], 4 * i);
  });
  context.putImageData(image, 0, 0);
  return canvas;
}

/** Values over their sum, times the number of positions: 1 is an even map. */
const timesEven = (values) => overSum(values).map((v) => v * values.length);

/** The map of one network over the query (g null) or a gallery image; null where there is none. */
function mapOver(network, g) {
  const views = details.views[network];
  if (!views) return null;
  const view = g === null ? views.query[state.without] : views.gallery[g];
  const sized = (values, stage) => {
    const [h, w] = views.sizes[stage - 1];
    return { values: timesEven(values), h, w };
  };
  if (state.map === "similarity") {
    const other = g === null ? pairOf(network) : g;
    const pair = (views.pairs[state.without] || {})[other];
    if (!pair) return null;
    const positions = views.sizes[3][0] * views.sizes[3][1];
    const place = g === null ? 0 : 1;
    return sized(unpackedMap(pair, place, place * positions, positions), 4);
  }
  if (!view) return null;
  if (state.map === "attention") {
    if (!view.scores) return null; // a gallery image
    return sized(attention(scoresOf(view, views.sizes, state.stage)), state.stage);
  }
  if (state.map === "cam") {
    const place = view.cam.stages.indexOf(state.stage);
    if (place < 0) return null;
    const [offset, positions] = placeOf(views.sizes, state.stage, view.cam.stages);
    return sized(unpackedMap(view.cam, place, offset, positions), state.stage);
  }
  return null;
}

/** A picture with what is chosen over it. */
function pictureOf(network, file, g) {
  const picture = make("div", { class: "picture", "data-network": network, "data-image": g ?? "" });
  picture.append(make("img", { class: "photo", src: file, alt: "", loading: "lazy" }));
  const map = mapOver(network, g);
  if (map) {
    picture.classList.add("mapped");
    picture.append(canvasOf(map));
  }
  if (state.map === "parts" && details.masks.query) {
    const mask = g === null ? details.masks.query : details.masks.gallery[g];
    // The mask of the whole query would show the part that is gone.
    if (mask && !(g === null && state.without)) {
      picture.classList.add("mapped");
      picture.append(make("img", { class: "mask", src: mask.file, alt: "", loading: "lazy" }));
    }
  }
  return picture;
}

// ---- who is who

const query = () => data.queries.find((q) => q.name === state.query);

/** The list of a network that is shown: {images, distances, ap, first}. */
function listOf(network) {
  if (state.without) return details.missing[state.without].lists[network];
  return query().lists[network][state.list];
}

/** The gallery image beside the query: the chosen one, else the first that counts. */
function pairOf(network) {
  if (state.pair !== null) return state.pair;
  const images = listOf(network).images;
  const counts = images.find((g) => !leftOut(markOf(query(), g)));
  return counts === undefined ? images[0] : counts;
}

const MARKS = {
  hit: ["✓", "hit: same identity, another camera"],
  miss: ["✗", "miss: another identity"],
  junk: ["J", "junk: no person, or badly cut; counts in no list"],
  camera: ["C", "same identity and camera as the query: counts in no list"],
  unknown: ["", "nobody has said who this is"],
};
function markOf(q, g) {
  if (!data.labelled) return "unknown";
  const [, id, camera] = data.gallery[g];
  if (id === -1) return "junk";
  if (id !== q.id) return "miss";
  return camera === q.camera ? "camera" : "hit";
}
const leftOut = (mark) => mark === "junk" || mark === "camera";

/** The rank of every image of a list; null for those that count in none. */
function ranksOf(images) {
  let rank = 0;
  return images.map((g) => (leftOut(markOf(query(), g)) ? null : ++rank));
}

function nameOf(id) {
  if (id === -1) return "no identity (junk)";
  return id === 0 ? "no identity of the test (distractor)" : `identity ${id}`;
}

// ---- 1 · the queries

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
  const numbers = (list) => [...new Set(list)].sort((a, b) => a - b);
  $("query-camera").append(new Option("any", ""));
  $("match-camera").append(new Option("any", ""));
  for (const c of numbers(data.queries.map((q) => q.camera))) $("query-camera").append(new Option(c, c));
  for (const c of numbers(data.queries.flatMap((q) => q.match_cameras)))
    $("match-camera").append(new Option(c, c));
  for (const label of document.querySelectorAll(".labelled")) label.hidden = !data.labelled;
  for (const id of ["filter", "found-by", "missed-by", "query-camera", "match-camera", "search"])
    $(id).addEventListener("input", showGrid);
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
  $("count").textContent =
    shownQueries.length === 0
      ? "No query fits: widen the filters."
      : `${shownQueries.length} of ${of} queries` +
        (of < data.total ? ` (the test set has ${data.total})` : "");
  $("grid").replaceChildren(
    ...shownQueries.map((q) => {
      const label = data.labelled
        ? `Query ${q.name}: identity ${q.id}, camera ${q.camera}, ${REASONS[q.reason]}`
        : `Query ${q.name}`;
      const caption = data.labelled ? `${q.id} · c${q.camera}` : q.name.slice(0, 8);
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

// ---- 2 · lists and maps

let latest = 0; // number of the last choice: an earlier one that is still loading is dropped

/** Change what is shown, then show it and write the address. */
async function choose(changes) {
  const own = ++latest;
  const next = { ...state, ...changes };
  const q = data.queries.find((one) => one.name === next.query);
  let read;
  try {
    read = await detailsOf(q);
  } catch (error) {
    $("problem").hidden = false;
    $("problem").textContent = `${error.message}: make the page again.`;
    return;
  }
  if (own !== latest) return;
  $("problem").hidden = true;
  details = read;
  Object.assign(state, next);
  keepPossible();
  show();
  writeAddress();
}

/** Bring what is chosen to what there is. */
function keepPossible() {
  if (!(state.without in details.missing)) state.without = "";
  if (state.without || !canRerank()) state.list = "plain";
  if (state.pair !== null && !(state.pair in data.gallery)) state.pair = null;
  if (!KINDS.includes(state.map) || !hasMap(state.map)) state.map = "none";
}

const canRerank = () => data.queries[0].lists.every((lists) => "reranked" in lists);
function hasMap(kind) {
  if (kind === "parts") return Boolean(details.masks.query);
  return kind === "none" || details.views.length > 0;
}

function show() {
  showControls();
  if (gridIsOf !== state.list) showGrid();
  showScale();
  showColumns();
  for (const button of $("grid").querySelectorAll("button")) {
    const chosen = button.dataset.query === state.query;
    if (chosen) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
    if (chosen) scrollInside($("grid"), button);
  }
}

/** Scroll a box so that one of its elements is seen, and leave the page where it is. */
function scrollInside(box, element) {
  const top = element.offsetTop - box.offsetTop;
  if (top < box.scrollTop) box.scrollTop = top;
  const below = top + element.offsetHeight - box.clientHeight;
  if (below > box.scrollTop) box.scrollTop = below;
}

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
  $("order-note").textContent = !canRerank()
    ? "Re-ranking needs more than 20 gallery images."
    : state.without
      ? "Plain only: re-ranking would change all queries when one changes."
      : "Re-ranking: k-reciprocal encoding (k1 20, k2 6, λ 0.3); made without junk.";
  const moves = ["cam", "attention"].includes(state.map);
  for (const input of document.querySelectorAll("input[name=stage]")) input.disabled = !moves;
  $("stage-note").textContent = moves
    ? ""
    : state.map === "similarity"
      ? "The similarity is of stage 4, which retrieval pools."
      : "Stages belong to activation maps and attention weights.";
  $("opacity").value = state.opacity;
  document.documentElement.style.setProperty("--opacity", state.opacity / 100);
  showMissing();
  if (withMaps) showTemperature();
}

function showMissing() {
  const parts = query().parts;
  $("missing").hidden = !data.queries.some((q) => q.parts.length);
  $("missing-note").textContent = parts.length
    ? "The picture is rendered again without it, and its vector made anew."
    : "This query shows none of the parts that can be left out.";
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
  ];
}

function showTemperature() {
  const marks = temperatureMarks();
  const l1 = marks[2][2];
  const value = state.t === "l1" ? l1 : state.t;
  $("temperature").value = positionOf(value);
  const words =
    state.t === "l1"
      ? "l1"
      : state.t === 0
        ? "T → 0"
        : state.t === Infinity
          ? "T → ∞"
          : `T = ${Number(state.t.toPrecision(3))}`;
  $("temperature-value").textContent = words;
  $("temperature").setAttribute("aria-valuetext", words);
  $("ticks").replaceChildren(
    ...marks.map(([name, t, like]) => {
      const share = positionOf(like ?? t) / STEPS;
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

const EXPLAINED = {
  none: "",
  cam:
    "Class activation map (eq. 5, 7): which positions speak for the training identity that the " +
    "network finds likeliest. Nobody of the test is among those it knows, so read it as a guess.",
  similarity:
    "Class-free map of a pair: the share of each position in the similarity of the two vectors that " +
    "retrieval compares. Its sum is that similarity. Choose another image of a list to see its pair.",
  attention:
    "Attention weights p(i, j) = softmax(A / T) of the query, computed here from the scores A of the " +
    "stage. The page holds the scores of queries only.",
  parts: "What the renderer drew at each pixel: the true parts, not a guess of a network.",
};

function showScale() {
  $("explain").textContent = EXPLAINED[state.map];
  if (state.map === "none") return $("scale").replaceChildren();
  if (state.map === "parts") {
    const masks = [details.masks.query, ...Object.values(details.masks.gallery)];
    const visible = new Set(masks.flatMap((mask) => mask.parts.map(([part]) => part)));
    const named = Object.entries(data.parts).filter(([part]) => visible.has(part));
    return $("scale").replaceChildren(
      ...named.map(([part, colour]) =>
        make("span", {}, make("i", { class: "swatch", style: `background:${colour}` }), part),
      ),
    );
  }
  const top = TOPS[state.map];
  const ticks = [0, 0.25, 0.5, 0.75].map((share) => String(share * top));
  const stops = MAGMA.map((rgb) => `rgb(${rgb.join(" ")})`).join(",");
  $("scale").replaceChildren(
    make(
      "div",
      {},
      make("div", { class: "bar", style: `background:linear-gradient(90deg,${stops})` }),
      make("div", { class: "ticks" }, ...[...ticks, `${top}+`].map((n) => make("span", {}, n))),
    ),
    "times an even spread: one scale for all these pictures; 1 is a map without contrast",
  );
}

function showColumns() {
  const q = query();
  const focused = document.activeElement?.dataset?.item;
  const open = [...document.querySelectorAll(".column details")].map((element) => element.open);
  $("columns").replaceChildren(...data.networks.map((network, k) => columnOf(network, k, open[k])));
  if (focused) document.querySelector(`[data-item="${focused}"]`)?.focus();
  const marks = new Set(data.networks.flatMap((_, k) => listOf(k).images.map((g) => markOf(q, g))));
  $("legend").replaceChildren(
    ...Object.entries(MARKS)
      .filter(([mark]) => marks.has(mark) && mark !== "unknown")
      .map(([mark, [sign, words]]) =>
        make("span", {}, make("span", { class: `frame sign ${mark}` }, sign), words),
      ),
  );
  $("status").textContent = `Query ${q.name}. ${data.networks
    .map((network, k) => `${network.heading}: ${numbersOf(k)}`)
    .join(". ")}`;
}

/** Average precision and first match of what is shown, in words. */
function numbersOf(network) {
  if (!data.labelled) return `${listOf(network).images.length} nearest images`;
  const list = listOf(network);
  if (list.ap === null) return "no match in another camera";
  const before = query().lists[network].plain.ap;
  const change = state.without ? ` (with ${state.without}: ${digits(before)})` : "";
  return `AP ${digits(list.ap)}${change} · first match at rank ${list.first} · ${matches(query().matches)} in the gallery`;
}

function columnOf(network, k, isOpen) {
  const heading = make("h3", { id: `network-${k}` }, network.heading);
  const column = make("article", { class: "column", "aria-labelledby": `network-${k}` }, heading);
  if (network.facts.learned)
    column.append(make("p", { class: "learned" }, `Learned from ${network.facts.learned}.`));
  if (data.labelled) column.append(make("p", { class: "learned" }, wholeTestSet(network)));
  column.append(make("p", { class: "numbers" }, numbersOf(k)), pairFigure(k));
  column.append(make("div", { class: "said" }, ...mapSentences(k)));

  const images = listOf(k).images;
  const ranks = ranksOf(images);
  const tenth = ranks.indexOf(10);
  const first = tenth < 0 ? images.length : tenth + 1;
  const label = `Ranked list of ${network.heading}`;
  column.append(itemsOf(k, ranks, 0, first, label));
  if (first < images.length) {
    const more = make("details", {}, make("summary", {}, `the next ${images.length - first} images, without maps`));
    more.append(itemsOf(k, ranks, first, images.length, `${label}, continued`));
    more.open = Boolean(isOpen);
    column.append(more);
  }
  return column;
}

/** Rank-1 and mAP of the record; and what was found here, where that differs. */
function wholeTestSet(network) {
  const name = state.without ? "plain" : state.list;
  const here = network.here[name];
  const record = network.record[name];
  const words = (m) => `rank-1 ${digits(m.rank1)}, mAP ${digits(m.mean_ap)}`;
  const said = `Whole test set (${data.total} queries, vector ${network.vector || "as given"}): `;
  if (!record) return `${said}${words(here)}.`;
  if (words(record) === words(here)) return `${said}${words(record)}, as in its record.`;
  const why = network.facts.stored
    ? "its stored weights are rounded to half precision"
    : "another machine rounds otherwise";
  return `${said}${words(record)} in its record. On this page ${words(here)}: ${why}.`;
}

function pairFigure(k) {
  const q = query();
  const g = pairOf(k);
  const [file, id, camera] = data.gallery[g];
  const images = listOf(k).images;
  const place = images.indexOf(g);
  const rank = place < 0 ? null : ranksOf(images)[place];
  const mark = markOf(q, g);
  const queryFile = state.without ? details.missing[state.without].file : q.file;
  const where =
    place < 0 ? `behind place ${images.length} of this list` : rank ? `rank ${rank}` : "without a rank";
  const who = data.labelled
    ? `${where}, ${MARKS[mark][1].split(":")[0]}: ${nameOf(id)}, camera ${camera}`
    : where;
  const about = data.labelled
    ? `Query: identity ${q.id}, camera ${q.camera}${state.without ? `, without ${state.without}` : ""}`
    : `Query: ${q.name}`;
  return make(
    "div",
    { class: "pair" },
    make("figure", {}, labelled(pictureOf(k, queryFile, null), about), make("figcaption", {}, about)),
    make("figure", {}, labelled(pictureOf(k, file, g), who), make("figcaption", {}, who)),
  );
}

/** A picture that a screen reader reads as one image. */
function labelled(picture, words) {
  picture.setAttribute("role", "img");
  picture.setAttribute("aria-label", state.map === "none" ? words : `${words}; over it: ${state.map}`);
  return picture;
}

/** What the numbers of a column's two large maps are, as paragraphs. */
function mapSentences(k) {
  return sentencesOf(k).map((sentence) => make("p", { class: "note" }, sentence));
}

function sentencesOf(k) {
  const views = details.views[k];
  if (!views || state.map === "none" || state.map === "parts") return [];
  const g = pairOf(k);
  const facts = data.networks[k].facts;
  const view = views.query[state.without];
  if (state.map === "cam") {
    if (!view.cam.stages.includes(state.stage))
      return [`This network has no classifier at stage ${state.stage}, so there is no map.`];
    const other = views.gallery[g];
    const guess = (v) => `training identity number ${v.class} (probability ${digits(v.confidence, 2)})`;
    const beside = other ? `; gallery image: ${guess(other)}` : "; maps are made for the first ten of a list";
    return [`Likeliest class of the query: ${guess(view)}${beside}.`];
  }
  if (state.map === "similarity") {
    const pair = (views.pairs[state.without] || {})[g];
    if (!pair) return ["Maps of pairs are made for the first ten of each list."];
    const of = data.networks[k].vector === "parts" ? "six cosines, one a stripe, sum to" : "cosine:";
    return [`Similarity, ${of} ${digits(pair.sum)}: the sum of each of the two maps.`];
  }
  const [h, w] = views.sizes[state.stage - 1];
  const p = attention(scoresOf(view, views.sizes, state.stage));
  return [
    `Effective positions: ${digits(effectivePositions(p), 1)} of ${h * w}; largest weight ${digits(Math.max(...p))} (query).`,
    attentionSentence(facts, state.stage),
  ];
}

/** Whether the network has these weights at a stage, and what they do there. */
function attentionSentence(facts, stage) {
  const own = `form ${facts.form}${facts.temperature === 1 ? "" : `, T = ${facts.temperature}`}${facts.standardise ? ", standardised scores" : ""}`;
  if (stage === 4) {
    return facts.sa1
      ? `SA1 (${own}) weighs this map before retrieval; the list was made with that, and does not follow the slider.`
      : "This network has no attention at stage 4: the slider shows what its scores would give.";
  }
  return facts.sa2
    ? `This network pools its branch of stage ${stage} by ${own}; retrieval throws the branch away.`
    : `This network has no attention at stage ${stage}: the slider shows what its scores would give.`;
}

/** The images of a list from one place to another. */
function itemsOf(k, ranks, from, to, label) {
  const list = listOf(k);
  const items = make("ol", { class: "list", "aria-label": label });
  for (let place = from; place < to; place++) {
    const g = list.images[place];
    const [file, id, camera] = data.gallery[g];
    const mark = markOf(query(), g);
    const [sign, meaning] = MARKS[mark];
    const rank = ranks[place];
    const who = data.labelled ? `${meaning}. ${nameOf(id)}, camera ${camera}.` : "";
    const words = `${rank ? `Rank ${rank}` : "No rank"}. ${who} Distance ${list.distances[place]}.`;
    items.append(
      make(
        "li",
        {},
        make(
          "button",
          {
            type: "button",
            class: mark,
            "data-item": `${k}-${place}`,
            "data-gallery": g,
            "aria-label": words,
            title: words,
            "aria-pressed": String(g === pairOf(k)),
            click: () => choose({ pair: g }),
          },
          pictureOf(k, file, g),
          make("span", { class: "sign", "aria-hidden": "true" }, sign),
          ` ${rank || "–"}`,
        ),
      ),
    );
  }
  return items;
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
    if (state.map === "attention") slide(t);
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

// ---- the address

const PLAIN = { ...state };
let written = "";

function writeAddress() {
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) {
    const always = ["query", "stage"].includes(name);
    if (always || value !== PLAIN[name]) words.set(name, value === Infinity ? "uniform" : value);
  }
  written = `#${words}`;
  if (location.hash !== written) location.replace(written);
}

let waiting = 0;
/** For sliders: browsers do not like an address that changes at every step. */
function writeAddressSoon() {
  clearTimeout(waiting);
  waiting = setTimeout(writeAddress, 200);
}

/** What an address asks for, as far as it makes sense. */
function readAddress() {
  const words = new URLSearchParams(location.hash.slice(1));
  const asked = { ...PLAIN, query: data.queries[0].name };
  const named = words.get("query");
  const same =
    data.queries.find((q) => q.name === named) ?? data.queries.find((q) => String(q.number) === named);
  if (same) asked.query = same.name;
  if (words.get("list") === "reranked" && canRerank()) asked.list = "reranked";
  if (KINDS.includes(words.get("map"))) asked.map = words.get("map");
  if (["1", "2", "3", "4"].includes(words.get("stage"))) asked.stage = Number(words.get("stage"));
  const opacity = Number(words.get("opacity"));
  if (words.has("opacity") && opacity >= 0 && opacity <= 100) asked.opacity = opacity;
  const t = words.get("t");
  if (t === "l1") asked.t = "l1";
  else if (t === "uniform") asked.t = Infinity;
  else if (t !== null && Number(t) >= 0) asked.t = Number(t);
  if (words.has("without")) asked.without = words.get("without");
  if (words.has("pair") && words.get("pair") in data.gallery) asked.pair = Number(words.get("pair"));
  return asked;
}

// ---- 3 · an image of one's own

let session = null; // the network, once it is loaded
let vectors = null; // of the gallery: {codes, scales, norms}

function offerNetwork() {
  const network = data.network;
  if (!network) {
    $("own-about").textContent = data.networks[0].facts.learned
      ? "This page was made without its network, so it cannot rank an image of yours. What the network needs stood in a sentence when the page was made."
      : "This page was made from vectors alone: there is no network that could look at another image.";
    return;
  }
  const facts = data.networks[0].facts;
  const honest =
    facts.learned_source === "rendered"
      ? " It has seen rendered people only: on a photograph its order means little."
      : " It knows photographs like those only; on others its order means less.";
  $("own-about").textContent =
    `The network ${data.networks[0].heading} can run in this page and rank the ${network.images} gallery images by their vector global. ` +
    `It learned from ${facts.learned}.${honest} Your image stays on this machine.`;
  $("own-controls").hidden = false;
  $("own-load").textContent = `Load the network (${network.megabytes} MB, from beside this page)`;
  $("own-load").addEventListener("click", loadNetwork);
  $("own-file").addEventListener("change", () => rankFile($("own-file").files[0]));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    const file = event.dataTransfer.files[0];
    if (session) rankFile(file);
    else $("own-status").textContent = "Load the network first, then drop the image again.";
  });
}

async function loadNetwork() {
  $("own-load").disabled = true;
  $("own-status").textContent = "Loading …";
  try {
    const part = async (name) => unpacked(await load(name, `network/${name}.js`));
    await load("runtime", "network/runtime.js");
    // From disk only the paths below work: machine code as bytes, the glue as an address of a blob.
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.proxy = false;
    ort.env.wasm.wasmBinary = await part("wasm");
    const glue = new Blob([await part("glue")], { type: "text/javascript" });
    ort.env.wasm.wasmPaths = { mjs: URL.createObjectURL(glue) };
    session = await ort.InferenceSession.create(await part("model"));
    vectors = readVectors(await part("gallery"), data.network);
    for (const name of ["wasm", "glue", "model", "gallery"]) delete EXPLORER.taken[name];
  } catch (error) {
    $("own-load").disabled = false;
    $("own-status").textContent = `The network could not be loaded: ${error.message}`;
    return;
  }
  $("own-load").hidden = true;
  $("own-file-label").hidden = false;
  $("own-status").textContent = "The network is ready.";
}

/** The int8 vectors of write_network(): scales, then codes. */
function readVectors(buffer, { images, dimensions }) {
  const scales = new Float32Array(buffer, 0, images);
  const codes = new Int8Array(buffer, 4 * images);
  const norms = new Float64Array(images);
  for (let g = 0; g < images; g++) {
    let sum = 0;
    for (let i = g * dimensions; i < (g + 1) * dimensions; i++) sum += codes[i] * codes[i];
    norms[g] = sum * scales[g] ** 2;
  }
  return { codes, scales, norms, dimensions };
}

/** Squared Euclidean distances of a vector from the gallery. */
function distancesFrom(vector) {
  const { codes, scales, norms, dimensions } = vectors;
  let own = 0;
  for (const v of vector) own += v * v;
  return norms.map((norm, g) => {
    let product = 0;
    const start = g * dimensions;
    for (let i = 0; i < dimensions; i++) product += codes[start + i] * vector[i];
    return Math.max(0, own + norm - 2 * product * scales[g]);
  });
}

/** How an axis of n pixels becomes one of m: for each new pixel [old pixel, weight] pairs.
 *  As OpenCV's INTER_AREA where it shrinks, INTER_LINEAR where it grows. */
function axisWeights(n, m) {
  const scale = n / m;
  return Array.from({ length: m }, (_, k) => {
    if (m >= n) {
      const place = Math.min(Math.max((k + 0.5) * scale - 0.5, 0), n - 1);
      const left = Math.min(Math.floor(place), Math.max(n - 2, 0));
      const right = Math.min(left + 1, n - 1);
      return [[left, 1 - (place - left)], [right, place - left]];
    }
    const pairs = [];
    for (let i = Math.floor(k * scale); i < Math.min(n, Math.ceil((k + 1) * scale)); i++) {
      const covered = Math.min((k + 1) * scale, i + 1) - Math.max(k * scale, i);
      if (covered > 1e-9) pairs.push([i, covered / scale]);
    }
    return pairs;
  });
}

/** The nearest whole number; halves, which averages of pixels often are, to the even one. */
function rounded(value) {
  const low = Math.floor(value + 1e-9);
  const rest = value - low;
  if (Math.abs(rest - 0.5) > 1e-6) return Math.round(value);
  return low % 2 ? low + 1 : low;
}

/** Pixels (RGBA, of ImageData) -> the network's input, (1, 3, height, width) float32. */
function inputOf({ data: pixels, width, height }, network) {
  const rows = axisWeights(height, network.height);
  const columns = axisWeights(width, network.width);
  const narrow = new Float64Array(height * network.width * 3);
  for (let y = 0; y < height; y++) {
    columns.forEach((pairs, x) => {
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (const [i, weight] of pairs) sum += weight * pixels[4 * (y * width + i) + c];
        narrow[3 * (y * network.width + x) + c] = sum;
      }
    });
  }
  const area = network.height * network.width;
  const input = new Float32Array(3 * area);
  rows.forEach((pairs, y) => {
    for (let x = 0; x < network.width; x++) {
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (const [i, weight] of pairs) sum += weight * narrow[3 * (i * network.width + x) + c];
        input[c * area + y * network.width + x] =
          (rounded(sum) / 255 - network.mean[c]) / network.std[c];
      }
    }
  });
  return input;
}

/** The vector `global` of an image. */
async function vectorOf(pixels) {
  const shape = [1, 3, data.network.height, data.network.width];
  const input = new ort.Tensor("float32", inputOf(pixels, data.network), shape);
  const { global: output } = await session.run({ image: input });
  return output.data;
}

async function rankFile(file) {
  if (!file) return;
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    $("own-status").textContent = `${file.name} is no image that this browser can read.`;
    return;
  }
  const canvas = make("canvas", { width: bitmap.width, height: bitmap.height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const pixels = context.getImageData(0, 0, bitmap.width, bitmap.height);
  const distances = distancesFrom(await vectorOf(pixels));
  const nearest = Array.from(distances.keys()).sort((a, b) => distances[a] - distances[b]).slice(0, 50);
  $("own-status").textContent = `${file.name}: the ${nearest.length} nearest of ${distances.length} gallery images.`;
  showOwn(canvas, nearest, distances);
}

function showOwn(canvas, nearest, distances) {
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "your image");
  const list = make("ol", { class: "list", "aria-label": "Gallery images nearest to your image" });
  nearest.forEach((g, place) => {
    const listed = data.gallery[g];
    const file = listed ? listed[0] : `network/images/g${String(g).padStart(5, "0")}.webp`;
    const who = data.labelled ? `, ${nameOf(data.network.ids[g])}, camera ${data.network.cameras[g]}` : "";
    const words = `Rank ${place + 1}${who}, distance ${distances[g].toPrecision(4)}`;
    const picture = make("div", { class: "picture" }, make("img", { src: file, alt: words, title: words }));
    list.append(make("li", { "data-gallery": g }, picture, make("small", {}, String(place + 1))));
  });
  const own = make("figure", {}, make("div", { class: "picture" }, canvas), make("figcaption", {}, "your image"));
  canvas.style.opacity = 1;
  $("own-result").replaceChildren(make("div", { class: "pair" }, own), list);
}

// ---- start

const GLOSSARY = {
  AP: "Average precision of this query: the mean, over its matches, of the share of matches among all images up to that rank. 1 is a list with all matches first.",
  "First match": "The rank of the first image of the same identity from another camera.",
  "Rank-1, mAP": "Over the whole test set: the share of queries whose first image is a match, and the mean of AP.",
  Distance: "Squared Euclidean distance of two vectors; re-ranked: the distance after k-reciprocal re-ranking.",
  "Times an even spread": "A map's positive part over its sum, times its number of positions: 1 everywhere for an even map.",
  "Effective positions": "exp of the entropy of the weights: 1 for one-hot, the number of positions for uniform weights.",
  T: "Temperature: 1 is eq. 1 of the paper; the number of channels gives softmax_mean; l1 is A over its sum and no softmax.",
};

function start() {
  data = EXPLORER.taken.index;
  if (!data) {
    $("about").textContent = "data/index.js is missing beside this page: make the page again.";
    return;
  }
  const shown = data.queries.length;
  $("about").textContent =
    `${data.title}: ${shown} of ${data.total} queries, ${data.gallery_size} gallery images` +
    (data.junk ? ` and ${data.junk} of junk.` : ".") +
    (data.source === "rendered" ? " The people are rendered: none of them exists." : "") +
    (shown < data.total && data.labelled
      ? " Half of these queries are evenly spaced over the test set; the rest are those on which the " +
        "networks differ most, and the hardest: they are no sample of it."
      : "");
  if (data.source !== "rendered") {
    $("warning").hidden = false;
    $("warning").textContent =
      "These are pictures of real people: look at them here, and do not pass this page or its pictures on.";
  }
  for (const [term, meaning] of Object.entries(GLOSSARY)) {
    $("glossary").append(make("dt", {}, term), make("dd", {}, meaning));
  }
  fillFilters();
  listen();
  offerNetwork();
  window.addEventListener("hashchange", () => {
    if (location.hash !== written && location.hash.includes("=")) choose(readAddress());
  });
  choose(readAddress());
}
document.addEventListener("DOMContentLoaded", start);
