"use strict";
// The summary over the whole test set: which queries two networks find at rank 1.

/** Whom each query of the test set finds first, as lists.py writes it: h, a, m, or - (no match). */
const whomOf = (network) => data.networks[network].here[state.list].whom;

/** What a query of the test set is for networks A and B: "both", "a", "b", "neither"; null without a match. */
function cellOf(number) {
  const a = whomOf(state.a)[number];
  const b = whomOf(state.b)[number];
  if (a === "-") return null;
  if (a === "h") return b === "h" ? "both" : "a";
  return b === "h" ? "b" : "neither";
}

/** The filter that leaves the queries of a cell. */
function filterOf(cell) {
  const { a, b } = state;
  if (cell === "both") return { found: [a, b].sort().join(""), missed: "" };
  if (cell === "neither") return { found: "", missed: [a, b].sort().join("") };
  return cell === "a" ? { found: `${a}`, missed: `${b}` } : { found: `${b}`, missed: `${a}` };
}

/** The four cells: {queries, occluded, alike: {a, b}, shown} of each. */
function countCells() {
  const cells = {};
  for (const name of ["both", "a", "b", "neither"]) {
    cells[name] = { queries: 0, occluded: 0, alike: { a: 0, b: 0 }, shown: 0 };
  }
  for (let number = 0; number < data.total; number++) {
    const cell = cells[cellOf(number)];
    if (!cell) continue;
    cell.queries += 1;
    if (data.occluded[number] === "1") cell.occluded += 1;
    for (const side of ["a", "b"]) if (whomOf(state[side])[number] === "a") cell.alike[side] += 1;
  }
  for (const q of data.queries) {
    const cell = cells[cellOf(q.number)];
    if (cell) cell.shown += 1;
  }
  return cells;
}

/** Who is wrong in a cell, and how many of these wrong first images wear the query's clothes. */
function alikeInWords(name, cell) {
  if (!data.look_alikes || name === "both" || !cell.queries) return null;
  const wrong = { a: ["b"], b: ["a"], neither: ["a", "b"] }[name];
  const counts = wrong.map((side) => `${side.toUpperCase()} ${cell.alike[side]} of ${cell.queries}`);
  return `wrong first image in the same clothes: ${counts.join(", ")}`;
}

function cellElement(name, counts) {
  const cell = counts[name];
  const all = Object.values(counts).reduce((sum, one) => sum + one.queries, 0);
  const lines = [
    `${((100 * cell.queries) / (all || 1)).toFixed(1)} %`,
    alikeInWords(name, cell),
    data.occluded ? `occluded: ${cell.occluded}` : null,
  ];
  const element = make("td", { "data-cell": name }, make("b", {}, String(cell.queries)));
  for (const line of lines) if (line) element.append(make("span", {}, line));
  if (cell.shown) {
    const words = `show the ${cell.shown} that this page has`;
    const change = { ...filterOf(name), filter: "all", why: "", camera: "", match: "", identity: "" };
    element.append(make("button", { type: "button", click: () => filterBy(change) }, words));
  } else if (cell.queries) element.append(make("span", {}, "this page has none of them"));
  return element;
}

function showSummary() {
  if ($("summary").hidden) return;
  $("network-a").value = state.a;
  $("network-b").value = state.b;
  const focused = document.activeElement?.closest?.("[data-cell]")?.dataset.cell;
  const counts = countCells();
  const row = (head, ...names) =>
    make("tr", {}, make("th", { scope: "row" }, head), ...names.map((name) => cellElement(name, counts)));
  $("crossed").replaceChildren(
    make(
      "thead",
      {},
      make("tr", {}, make("td"), ...["B finds", "B misses"].map((head) => make("th", { scope: "col" }, head))),
    ),
    make("tbody", {}, row("A finds", "both", "a"), row("A misses", "b", "neither")),
  );
  if (focused) document.querySelector(`[data-cell=${focused}] button`)?.focus();
  const order = state.list === "reranked" ? "re-ranked" : "plain";
  const said = [`All ${data.total} queries of the test set, ${order} lists. A network finds a query if its first image is a match.`];
  const without = [...whomOf(state.a)].filter((code) => code === "-").length;
  if (without) said.push(`${without} of them have no match and are not counted.`);
  if (data.occluded) {
    const least = 100 * data.least_occluded;
    said.push(`A query is occluded if an object before the person hides over ${least} % of the picture.`);
  }
  $("summary-note").textContent = said.join(" ");
}

function listenToSummary() {
  $("summary").hidden = !data.labelled || data.networks.length < 2;
  for (const [id, own, other] of [["network-a", "a", "b"], ["network-b", "b", "a"]]) {
    data.networks.forEach((network, k) => $(id).append(new Option(network.heading, k)));
    $(id).addEventListener("input", () => {
      const k = Number($(id).value);
      // The same network on both sides says nothing: they change places.
      choose(k === state[other] ? { [own]: k, [other]: state[own] } : { [own]: k });
    });
  }
}
