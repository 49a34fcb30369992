"use strict";
// The data of the page. All of it comes in scripts that call EXPLORER.take(), since a page opened
// from disk may load scripts and pictures and nothing else. page.py and maps.py say what they hold.

const EXPLORER = {
  taken: {},
  take(name, content) {
    this.taken[name] = content;
  },
};

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

/** One of the maps that packed_maps() of maps.py wrote: its positive part. */
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
