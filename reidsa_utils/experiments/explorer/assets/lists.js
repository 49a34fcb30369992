"use strict";
// 2 · ranked lists: who is who, and a column for each network.

const query = () => data.queries.find((q) => q.name === state.query);

/** The list of a network that is shown: {images, distances, ap, first}. */
function listOf(network) {
  if (state.without) return details.missing[state.without].lists[network];
  return query().lists[network][state.list];
}

/** The gallery image beside the query: the chosen one, else the first that counts. */
function pairOf(network) {
  if (state.pair !== null) return state.pair;
  return firstOf(query(), listOf(network).images);
}

const MARKS = {
  hit: ["✓", "hit: same identity"],
  alike: ["≈", "miss: another identity, in the same clothes"],
  miss: ["✗", "miss: another identity"],
  junk: ["J", "junk: no person, or badly cut; counts in no list"],
  camera: ["C", "same identity and camera as the query: counts in no list"],
  unknown: ["", "nobody has said who this is"],
};
function markOf(q, g) {
  if (!data.labelled) return "unknown";
  const [, id, camera] = data.gallery[g];
  if (id === -1) return "junk";
  if (id !== q.id) return wearTheSame(id, q.id) ? "alike" : "miss";
  return data.camera_rule && camera === q.camera ? "camera" : "hit";
}

/** Whether two people are of one group of look-alikes: the renderer dresses them alike. */
function wearTheSame(a, b) {
  const group = (id) => Math.floor((id - 1) / data.look_alikes);
  return data.look_alikes > 0 && group(a) === group(b);
}

const leftOut = (mark) => mark === "junk" || mark === "camera";

/** The rank of every image of a list; null for those that count in none. */
function ranksOf(images) {
  let rank = 0;
  return images.map((g) => (leftOut(markOf(query(), g)) ? null : ++rank));
}

/** The camera of an image, to stand behind other words; "" where cameras count for nothing. */
const inCamera = (camera) => (data.camera_rule ? `, camera ${camera}` : "");

/** The image of a list that has rank 1; the first one where none counts. */
function firstOf(q, images) {
  return images.find((g) => !leftOut(markOf(q, g))) ?? images[0];
}

/** How many queries find whom first, in words. */
function whomFirst(counts) {
  const hits = `a hit ${times(counts.hit)}`;
  if (!data.look_alikes) return `${hits}, a miss ${times(counts.miss)}`;
  const alike = `somebody else in the same clothes ${times(counts.alike)}`;
  return `${hits}, ${alike}, another miss ${times(counts.miss)}`;
}

function nameOf(id) {
  if (id === -1) return "no identity (junk)";
  return id === 0 ? "no identity of the test (distractor)" : `identity ${id}`;
}

function showColumns() {
  const q = query();
  const focused = document.activeElement?.dataset?.item;
  $("common").replaceChildren(...saidOnce().map((sentence) => make("p", { class: "learned" }, sentence)));
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
  if (list.ap === null) return "no match in the gallery";
  const before = query().lists[network].plain.ap;
  const change = state.without ? ` (with ${state.without}: ${digits(before)})` : "";
  return `AP ${digits(list.ap)}${change} · first match at rank ${list.first} · ${matches(query().matches)} in the gallery`;
}

function columnOf(network, k, isOpen) {
  const heading = make("h3", { id: `network-${k}` }, network.heading);
  const column = make("article", { class: "column", "aria-labelledby": `network-${k}` }, heading);
  if (network.facts.learned && !sameForAll((n) => n.facts.learned))
    column.append(make("p", { class: "learned" }, `Learned from ${network.facts.learned}.`));
  if (data.labelled) column.append(make("p", { class: "learned" }, wholeTestSet(network)));
  column.append(make("p", { class: "numbers" }, numbersOf(k)), pairFigure(k));
  const { best, first: rankOfBest } = listOf(k);
  if (data.labelled && best !== null && best !== pairOf(k)) {
    const words = `compare with its best match, rank ${rankOfBest}`;
    column.append(
      make("button", { type: "button", class: "best", click: () => choose({ pair: best }) }, words),
    );
  }
  column.append(make("div", { class: "said" }, ...mapSentences(k)));

  const images = listOf(k).images;
  const ranks = ranksOf(images);
  const tenth = ranks.indexOf(10);
  const first = tenth < 0 ? images.length : tenth + 1;
  const label = `Ranked list of ${network.heading}`;
  column.append(itemsOf(k, ranks, 0, first, label));
  if (first < images.length) {
    const items = itemsOf(k, ranks, first, images.length, `${label}, continued`);
    const summary = make("summary", {}, `the next ${images.length - first} images${withThisMap(items)}`);
    const more = make("details", {}, summary, items);
    more.open = Boolean(isOpen);
    column.append(more);
  }
  return column;
}

/** How many images of a list have the map that is shown; "" where that says nothing. */
function withThisMap(items) {
  if (state.map === "none" || !details.views.length) return "";
  const n = items.querySelectorAll(".mapped").length;
  return n ? ` (${n} of them with this map)` : " (without this map)";
}

const sameForAll = (what) => new Set(data.networks.map(what)).size === 1;

/** What holds for all columns, in sentences. */
function saidOnce() {
  const said = [];
  const many = data.networks.length > 1;
  const { learned } = data.networks[0].facts;
  if (learned && sameForAll((n) => n.facts.learned)) {
    said.push(`${many ? "All of these networks" : "This network"} learned from ${learned}.`);
  }
  if (!data.labelled) return said;
  const vector = sameForAll((n) => n.vector) && data.networks[0].vector;
  said.push(`The whole test set is ${data.total} queries${vector ? `, compared by the vector ${vector}` : ""}.`);
  for (const why of new Set(data.networks.map(whyNotAsInTheRecord))) {
    if (why) said.push(`Where the numbers on this page are not those of the record, ${why}.`);
  }
  return said;
}

const scoreWords = (m) => `rank-1 ${digits(m.rank1)}, mAP ${digits(m.mean_ap)}`;

/** Why a network's numbers differ from its record; "" where they do not. */
function whyNotAsInTheRecord(network) {
  const record = network.record[state.list];
  if (!record || scoreWords(record) === scoreWords(network.here[state.list])) return "";
  return network.facts.stored
    ? "the stored weights are rounded to half precision"
    : "another machine rounds otherwise";
}

/** Rank-1 and mAP of the record; and what was found here, where that differs. */
function wholeTestSet(network) {
  const here = network.here[state.list];
  const record = network.record[state.list];
  const vector = sameForAll((n) => n.vector) ? "" : ` (vector ${network.vector || "as given"})`;
  const first = `At rank 1: ${whomFirst(here.at_rank_1)}.`;
  const said = `Whole test set${vector}:`;
  if (!record) return `${said} ${scoreWords(here)}. ${first}`;
  if (!whyNotAsInTheRecord(network)) return `${said} ${scoreWords(record)}, as in its record. ${first}`;
  return `${said} ${scoreWords(record)} in its record; on this page ${scoreWords(here)}. ${first}`;
}

function pairFigure(k) {
  const q = query();
  const g = pairOf(k);
  const [file, id, camera] = data.gallery[g];
  const images = listOf(k).images;
  const place = images.indexOf(g);
  let rank = place < 0 ? null : ranksOf(images)[place];
  if (place < 0 && g === listOf(k).best) rank = listOf(k).first;
  const mark = markOf(q, g);
  const queryFile = state.without ? details.missing[state.without].file : q.file;
  let where = rank ? `rank ${rank}` : "without a rank";
  if (place < 0 && !rank) where = `behind place ${images.length} of this list`;
  const who = data.labelled
    ? `${where}, ${MARKS[mark][1].split(":")[0]}: ${nameOf(id)}${inCamera(camera)}`
    : where;
  const about = data.labelled
    ? `Query: identity ${q.id}${inCamera(q.camera)}${state.without ? `, without ${state.without}` : ""}`
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
  let over = "";
  if (picture.querySelector(".empty")) over = `; its ${state.map} map has no positive part`;
  else if (picture.matches(".mapped")) over = `; over it: ${state.map}`;
  picture.setAttribute("aria-label", words + over);
  return picture;
}

/** What the numbers of a column's two large maps are, as paragraphs. */
function mapSentences(k) {
  return sentencesOf(k).map((sentence) => make("p", { class: "note" }, sentence));
}

function sentencesOf(k) {
  const views = details.views[k];
  if (state.map === "parts" && state.without) {
    return [`The query has no part mask here: it would show the ${state.without} that is removed.`];
  }
  if (!views || state.map === "none" || state.map === "parts") return [];
  const g = pairOf(k);
  const facts = data.networks[k].facts;
  const view = views.query[state.without];
  if (state.map === "cam") {
    if (!view.cam.stages.includes(state.stage))
      return [`This network has no classifier at stage ${state.stage}, so there is no map.`];
    const other = views.gallery[g];
    const guess = (v) => `training identity number ${v.class} (probability ${digits(v.confidence, 2)})`;
    const beside = other ? `; gallery image: ${guess(other)}` : "";
    return [
      `Likeliest class of the query: ${guess(view)}${beside}.`,
      ...(other ? [] : [WHICH_HAVE_MAPS]),
      ...emptyMaps(k, g, "no position speaks for this class"),
    ];
  }
  if (state.map === "similarity") {
    const pair = (views.pairs[state.without] || {})[g];
    if (!pair) return [WHICH_HAVE_MAPS];
    const of = data.networks[k].vector === "parts" ? "six cosines, one a stripe, sum to" : "cosine:";
    return [
      `Similarity, ${of} ${digits(pair.sum)}: the sum of each of the two maps.`,
      ...emptyMaps(k, g, "no position adds to the similarity"),
    ];
  }
  const [h, w] = views.sizes[state.stage - 1];
  const p = attention(scoresOf(view, views.sizes, state.stage), k);
  if (!p) return [`The page does not know the weights of the form ${facts.form}.`];
  return [
    `Effective positions: ${digits(effectivePositions(p), 1)} of ${h * w}; largest weight ${digits(Math.max(...p))} (query).`,
    attentionSentence(facts, state.stage),
  ];
}

const WHICH_HAVE_MAPS =
  "This image has no such map here: maps are made up to the tenth rank of each list, and for the " +
  "first image and the best match of every network.";

/** A sentence for each of the two large pictures whose map has no positive part. */
function emptyMaps(k, g, meaning) {
  const pictures = { query: null, "gallery image": g };
  return Object.entries(pictures)
    .filter(([, image]) => mapOver(k, image)?.isEmpty)
    .map(([name]) => `The map of the ${name} has no positive part: ${meaning}.`);
}

/** Whether the network has these weights at a stage, and what they do there. */
function attentionSentence(facts, stage) {
  if (state.t === "own" && !attends(facts, stage)) {
    return `This network has no attention at stage ${stage}: every position weighs the same.`;
  }
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
  const items = make("ol", { class: "list", "aria-label": label });
  for (let place = from; place < to; place++) {
    items.append(make("li", {}, itemOf(k, place, ranks[place])));
  }
  return items;
}

/** An image of a list: a button that makes it the pair of the query. */
function itemOf(k, place, rank) {
  const list = listOf(k);
  const g = list.images[place];
  const [file, id, camera] = data.gallery[g];
  const mark = markOf(query(), g);
  const [sign, meaning] = MARKS[mark];
  const who = data.labelled ? `${meaning}. ${nameOf(id)}${inCamera(camera)}.` : "";
  const words = `${rank ? `Rank ${rank}` : "No rank"}. ${who} Distance ${list.distances[place]}.`;
  return make(
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
  );
}
