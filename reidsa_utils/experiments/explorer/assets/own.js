"use strict";
// 3 · an image of one's own, ranked by the network inside the page.

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
 *  As OpenCV's INTER_AREA where it shrinks, INTER_LINEAR where it grows (or stays, m = n). */
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

/** An image {values: three numbers a pixel, height, width} in another size, in whole numbers. */
function resizedOnce(image, height, width) {
  if (image.height === height && image.width === width) return image;
  const rows = axisWeights(image.height, height);
  const columns = axisWeights(image.width, width);
  const narrow = new Float64Array(image.height * width * 3);
  for (let y = 0; y < image.height; y++) {
    columns.forEach((pairs, x) => {
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (const [i, weight] of pairs) sum += weight * image.values[3 * (y * image.width + i) + c];
        narrow[3 * (y * width + x) + c] = sum;
      }
    });
  }
  const values = new Uint8Array(height * width * 3);
  rows.forEach((pairs, y) => {
    for (let place = 0; place < 3 * width; place++) {
      let sum = 0;
      for (const [i, weight] of pairs) sum += weight * narrow[3 * i * width + place];
      values[3 * y * width + place] = rounded(sum);
    }
  });
  return { values, height, width };
}

/** As data.resize() of the package: what shrinks first, then what grows. */
function resized(image, height, width) {
  const shrunk = resizedOnce(image, Math.min(image.height, height), Math.min(image.width, width));
  return resizedOnce(shrunk, height, width);
}

/** Pixels (RGBA, of ImageData) -> the network's input, (1, 3, height, width) float32. */
function inputOf({ data: pixels, width, height }, network) {
  const colours = pixels.filter((_, i) => i % 4 < 3);
  const { values } = resized({ values: colours, height, width }, network.height, network.width);
  const area = network.height * network.width;
  const input = new Float32Array(3 * area);
  values.forEach((value, i) => {
    const c = i % 3;
    input[c * area + (i - c) / 3] = (value / 255 - network.mean[c]) / network.std[c];
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
    const who = data.labelled ? `, ${nameOf(data.network.ids[g])}${inCamera(data.network.cameras[g])}` : "";
    const words = `Rank ${place + 1}${who}, distance ${distances[g].toPrecision(4)}`;
    const picture = make("div", { class: "picture" }, make("img", { src: file, alt: words, title: words }));
    list.append(make("li", { "data-gallery": g }, picture, make("small", {}, String(place + 1))));
  });
  const own = make("figure", {}, make("div", { class: "picture" }, canvas), make("figcaption", {}, "your image"));
  canvas.style.opacity = 1;
  $("own-result").replaceChildren(make("div", { class: "pair" }, own), list);
}
