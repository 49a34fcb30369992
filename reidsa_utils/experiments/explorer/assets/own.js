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

// An image is resized as data.resize() of the package does it, by OpenCV: what shrinks is averaged,
// then what grows is interpolated. For each new pixel of an axis there are [old pixel, weight] pairs.

/** An axis that shrinks from n pixels to m, or keeps them: the pixels below a new one. */
function areaWeights(n, m) {
  const scale = n / m;
  return Array.from({ length: m }, (_, k) => {
    const pairs = [];
    for (let i = Math.floor(k * scale); i < Math.min(n, Math.ceil((k + 1) * scale)); i++) {
      const covered = Math.min((k + 1) * scale, i + 1) - Math.max(k * scale, i);
      if (covered > 1e-9) pairs.push([i, covered / scale]);
    }
    return pairs;
  });
}

/** An axis that grows, or keeps its pixels: the two beside a new one, in 2048ths. */
function linearWeights(n, m) {
  return Array.from({ length: m }, (_, k) => {
    const place = Math.min(Math.max(((k + 0.5) * n) / m - 0.5, 0), n - 1);
    const left = Math.floor(place);
    const weight = Math.round(2048 * (place - left));
    return [[left, 2048 - weight], [Math.min(left + 1, n - 1), weight]];
  });
}

/** The mean, as a whole number; halves, which averages of pixels often are, to the even one. */
function mean(pairs) {
  let sum = 0;
  for (const [value, weight] of pairs) sum += value * weight;
  const low = Math.floor(sum + 1e-9);
  if (Math.abs(sum - low - 0.5) > 1e-6) return Math.round(sum);
  return low % 2 ? low + 1 : low;
}

/** What is left of 2048ths of 2048ths, rounded where OpenCV rounds. */
function interpolated(pairs) {
  let sum = 2;
  for (const [value, weight] of pairs) sum += Math.floor((weight * Math.floor(value / 16)) / 65536);
  return sum >> 2;
}

/** image: {values: three numbers a pixel, height, width}. rows, columns: pairs of the new axes. */
function resample(image, rows, columns, combine) {
  const width = columns.length;
  const narrow = new Float64Array(3 * image.height * width);
  for (let y = 0; y < image.height; y++) {
    columns.forEach((pairs, x) => {
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (const [i, weight] of pairs) sum += weight * image.values[3 * (y * image.width + i) + c];
        narrow[3 * (y * width + x) + c] = sum;
      }
    });
  }
  const values = new Uint8Array(3 * rows.length * width);
  rows.forEach((pairs, y) => {
    for (let place = 0; place < 3 * width; place++) {
      const own = pairs.map(([i, weight]) => [narrow[3 * i * width + place], weight]);
      values[3 * y * width + place] = combine(own);
    }
  });
  return { values, height: rows.length, width };
}

function resized(image, height, width) {
  const h = Math.min(image.height, height);
  const w = Math.min(image.width, width);
  if (image.height !== h || image.width !== w) {
    image = resample(image, areaWeights(image.height, h), areaWeights(image.width, w), mean);
  }
  if (h === height && w === width) return image;
  return resample(image, linearWeights(h, height), linearWeights(w, width), interpolated);
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
