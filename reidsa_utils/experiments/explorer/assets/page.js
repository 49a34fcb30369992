"use strict";
// The page as a whole: what it begins with, and how it follows a choice.

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

const GLOSSARY = {
  AP: "Average precision of this query: the mean, over its matches, of the share of matches among all images up to that rank. 1 is a list with all matches first.",
  "First match": "The rank of the first hit.",
  "Rank-1, mAP": "Over the whole test set: the share of queries whose first image is a match, and the mean of AP.",
  Distance: "Squared Euclidean distance of two vectors; re-ranked: the distance after k-reciprocal re-ranking.",
};
const GLOSSARY_OF_MAPS = {
  "Times an even spread": "A map's positive part over its sum, times its number of positions: 1 everywhere for an even map.",
  "Effective positions": "exp of the entropy of the weights: 1 for one-hot, the number of positions for uniform weights.",
  T: "Temperature: 1 is eq. 1 of the paper; the number of channels gives softmax_mean; l1 is A over its sum and no softmax.",
};

/** What is on the page, in sentences. */
function about() {
  const shown = data.queries.length;
  const junk = data.junk ? ` and ${data.junk} of junk` : "";
  const said = [
    `${data.title}: ${shown} of ${data.total} queries, ${data.gallery_size} gallery images${junk}.`,
  ];
  if (data.source === "rendered") said.push("The people are rendered: none of them exists.");
  if (!data.camera_rule) said.push("Images of a query's own camera are matches, too.");
  if (data.labelled && shown < data.total) {
    const among = data.networks.length > 1 ? "those on which the networks differ most, and " : "";
    said.push(
      `Half of these queries are evenly spaced over the test set; the rest are ${among}the hardest: they are no sample of it.`,
    );
  }
  return said;
}

function start() {
  data = EXPLORER.taken.index;
  if (!data) {
    $("about").textContent = "data/index.js is missing beside this page: make the page again.";
    return;
  }
  $("about").textContent = about().join(" ");
  if (data.source !== "rendered") {
    $("warning").hidden = false;
    $("warning").textContent =
      "These are pictures of real people: look at them here, and do not pass this page or its pictures on.";
  }
  const withMaps = data.networks.some((network) => network.facts.channels);
  for (const element of document.querySelectorAll(".of-maps")) element.hidden = !withMaps;
  const glossary = withMaps ? { ...GLOSSARY, ...GLOSSARY_OF_MAPS } : GLOSSARY;
  for (const [term, meaning] of Object.entries(glossary)) {
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
