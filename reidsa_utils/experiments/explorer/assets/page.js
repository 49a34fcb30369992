"use strict";
// The page as a whole: what it begins with, and how it follows a choice.

function show() {
  showControls();
  showSummary();
  if (gridIsOf !== filtersInWords()) showGrid();
  else markChosen();
  showScale();
  showColumns();
  showMissingTable();
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
  T: "Temperature: 1 is eq. 1 of the paper (arXiv:1811.12150); the number of channels gives softmax_mean; l1 is A over its sum and no softmax.",
  Stage: "One of the four blocks of the backbone. Retrieval compares what stage 4 gives; the branches hang behind stages 1 to 3.",
  "Vector parts, global": "What stands for an image. global is the mean of the map of stage 4 over all positions. parts is a mean for each of six horizontal stripes, one behind the other.",
  "In its record": "The numbers that the training run wrote down when it was tested, in the folder results/ of the repository.",
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
  return said;
}

/** Which of the queries stand for the test set, in sentences; "" where all of it is here. */
function sample() {
  const spaced = data.queries.filter((q) => q.reason === "evenly spaced").length;
  const rest = data.queries.length - spaced;
  if (!data.labelled || !rest) return "";
  const differ = data.queries.some((q) => q.reason === "differ");
  const others = differ
    ? "The other ones were picked because the networks differ on them (≠) or because they are the hardest (!)"
    : "The other ones were picked because they are the hardest (!)";
  return (
    `Only the ${spaced} evenly spaced queries (=) are a sample of the test set. ${others}, so counts ` +
    "that include them do not hold for the test set."
  );
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
  listenToSummary();
  $("sample").textContent = sample();
  listen();
  offerNetwork();
  window.addEventListener("hashchange", () => {
    if (location.hash !== written && location.hash.includes("=")) choose(readAddress());
  });
  choose(readAddress());
}
document.addEventListener("DOMContentLoaded", start);
