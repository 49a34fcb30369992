"use strict";
// What is shown now: how it changes, and the address that holds it.

const KINDS = ["none", "cam", "similarity", "attention", "parts"];
const state = {
  query: "", // name of the query
  list: "plain", // or "reranked"
  map: "cam", // one of KINDS
  stage: 2,
  opacity: 60, // percent
  t: 1, // temperature: a number, 0 (one-hot), Infinity (uniform), "l1" (A over its sum), or
  // "own" (each network's weights as they were trained)
  without: "", // the part that is left out of the query
  pair: null, // number of the gallery image beside the query; null: the first of each list
  filter: "all", // one of FILTERS
  why: "", // one of REASONS
  found: "", // by which networks, as their places: "02" is the first and the third
  missed: "", // likewise
  camera: "", // of the query
  match: "", // a camera that the query has a match in
  identity: "", // how it begins
  a: 0, // the networks of the summary
  b: 1,
};

let data = null; // data/index.js
let details = null; // data/query_N.js of the query that is shown
let shownQueries = []; // what the filters leave, in their order
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

const canRerank = () => data.why_not_reranked === "";
function hasMap(kind) {
  if (kind === "parts") return Boolean(details.masks.query);
  return kind === "none" || details.views.length > 0;
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
  if (t === "l1" || t === "own") asked.t = t;
  else if (t === "uniform") asked.t = Infinity;
  else if (t !== null && Number(t) >= 0) asked.t = Number(t);
  if (words.has("without")) asked.without = words.get("without");
  if (words.has("pair") && words.get("pair") in data.gallery) asked.pair = Number(words.get("pair"));
  for (const id of ["filter", "why", "camera", "match"]) {
    const options = [...$(id).options].map((option) => option.value);
    if (options.includes(words.get(id))) asked[id] = words.get(id);
  }
  asked.identity = /^\d*$/.test(words.get("identity") ?? "") ? (words.get("identity") ?? "") : "";
  const places = data.networks.map((_, k) => String(k));
  const listed = (side) => places.filter((k) => (words.get(side) ?? "").includes(k));
  if (data.labelled) {
    asked.found = listed("found").join("");
    asked.missed = listed("missed").filter((k) => !asked.found.includes(k)).join("");
  }
  const [a, b] = [words.get("a") ?? "0", words.get("b") ?? "1"];
  if (a !== b && places.includes(a) && places.includes(b)) {
    asked.a = Number(a);
    asked.b = Number(b);
  }
  return asked;
}
