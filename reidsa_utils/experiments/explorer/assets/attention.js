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

/** The weights that the slider stands for. */
function attention(scores) {
  if (state.t === "l1") return overSum(scores.map((a) => Math.max(a, 0)));
  return softmax(scores, state.t);
}

/** The temperature at which a softmax is as wide as l1, the released code's A / sum A. */
function temperatureLikeL1(scores) {
  const wanted = effectivePositions(overSum(scores.map((a) => Math.max(a, 0))));
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
