"use strict";
// Maps over pictures: their colours, their scale, and what they are in words.

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

/** The map of one network over the query (g null) or a gallery image; null where there is none.
 * isEmpty: no value is above zero, so there is nothing to colour.
 */
function mapOver(network, g) {
  const views = details.views[network];
  if (!views) return null;
  const view = g === null ? views.query[state.without] : views.gallery[g];
  const sized = (values, stage) => {
    const [h, w] = views.sizes[stage - 1];
    return { values: timesEven(values), h, w, isEmpty: values.every((v) => v === 0) };
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
    const weights = attention(scoresOf(view, views.sizes, state.stage), network);
    return weights && sized(weights, state.stage);
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
    picture.append(map.isEmpty ? make("span", { class: "empty" }, "no positive part") : canvasOf(map));
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

const EXPLAINED = {
  none: "",
  cam:
    "Class activation map (eq. 5, 7): which positions speak for the training identity that the " +
    "network finds likeliest. Nobody of the test is among those it knows, so read it as a guess. " +
    "The slider does not change this map.",
  similarity:
    "Class-free map of a pair: the share of each position in the similarity of the two vectors that " +
    "retrieval compares. Its sum is that similarity. Choose another image of a list to see its pair.",
  attention:
    "Attention weights p(i, j) = softmax(A / T) of the query, computed here from the scores A of the " +
    "stage. The page holds the scores of queries only, so gallery images have no such map.",
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
