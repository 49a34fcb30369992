"use strict";
// Attention weights (eq. 1) from a stage's scores, and the scale of the temperature.

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

/** A over its sum, as in the released code. */
const l1 = (scores) => overSum(scores.map((a) => Math.max(a, 0)));

/** The weights of a network that the slider or its buttons stand for; null where the page does not know them. */
function attention(scores, network) {
  if (state.t === "own") return asTrained(scores, data.networks[network].facts, state.stage);
  if (state.t === "l1") return l1(scores);
  return softmax(scores, state.t);
}

/** Whether a network has spatial attention at a stage. */
const attends = (facts, stage) => facts.form !== "none" && (stage === 4 ? facts.sa1 : facts.sa2);

/** The weights of a stage as the network was trained: even ones where it has no attention. */
function asTrained(scores, facts, stage) {
  if (!attends(facts, stage)) return softmax(scores, Infinity);
  if (facts.form === "l1") return l1(scores);
  if (facts.form === "sigmoid") return overSum(scores.map((a) => 1 / (1 + Math.exp(-a))));
  if (!["softmax", "softmax_mean"].includes(facts.form)) return null; // somebody's own form
  const own = facts.form === "softmax" ? scores : scores.map((a) => a / facts.channels[stage - 1]);
  return softmax(facts.standardise ? standardised(own) : own, facts.temperature);
}

/** Scores with mean 0 and standard deviation 1. */
function standardised(scores) {
  const mean = scores.reduce((sum, a) => sum + a, 0) / scores.length;
  const centred = scores.map((a) => a - mean);
  const variance = centred.reduce((sum, a) => sum + a * a, 0) / scores.length;
  return centred.map((a) => a / Math.sqrt(variance + 2 ** -23));
}

/** The temperature at which a softmax is as wide as l1, the released code's A / sum A. */
function temperatureLikeL1(scores) {
  const wanted = effectivePositions(l1(scores));
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
function positionAt(temperature) {
  if (temperature === 0) return 0;
  if (temperature === Infinity) return STEPS;
  const share = (Math.log10(temperature) - LOWEST) / (HIGHEST - LOWEST);
  return Math.min(STEPS - 1, Math.max(1, Math.round(share * STEPS)));
}
