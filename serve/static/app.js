// Scores dropped images and shows what the model saw. No library, nothing from elsewhere.

import { ask, at, Refused } from "./ask.js";
import { watch } from "./jobs.js";

const TYPES = { png: "image/png", jpg: "image/jpeg", jpeg: "image/jpeg",
                tif: "image/tiff", tiff: "image/tiff", bmp: "image/bmp",
                dcm: "application/dicom" };

// Inferno (matplotlib, CC0) at ten points: even in lightness, readable without colour vision.
const INFERNO = [[0, 0, 4], [27, 12, 65], [74, 12, 107], [120, 28, 109], [165, 44, 96],
                 [207, 68, 70], [237, 105, 37], [251, 155, 6], [247, 209, 61], [252, 255, 164]];

let card = null;     // metadata of the chosen model
let shown = null;    // the row whose result is on screen
let readable = false; // whether the endpoint may read objects

function complain(refused, file) {
  if (refused.status === 401) {
    if (sessionStorage.getItem("token")) {
      at("access-reason").textContent = "That token was not accepted.";
      sessionStorage.removeItem("token");
    }
    at("access").hidden = false;
    at("token").value = "";
    at("token").focus();
    return;
  }
  const source = refused.id ? ` (request ${refused.id})` : "";
  at("problem-error").textContent = file ? `${file}: ${refused.message}` : refused.message;
  at("problem-hint").textContent = (refused.hint || "") + source;
  at("problem").hidden = false;
}

// ---------------------------------------------------------------- the model

async function start() {
  try {
    const server = await ask("/v2");
    at("access").hidden = true;
    at("model").replaceChildren(...server.models.map((name) => new Option(name)));
    at("model").disabled = server.models.length < 2;
    readable = server.extensions.includes("uris");
    await choose();
    if (server.extensions.includes("jobs")) watch();
  } catch (error) {
    complain(error);
  }
}

async function choose() {
  card = await ask(`/v2/models/${encodeURIComponent(at("model").value)}`);
  at("drop").hidden = false;
  at("bucket").hidden = !readable;
  const { threshold, calibration_images: normals, architecture, score } = card.parameters;
  const rate = threshold && `threshold for ${percent(threshold.fpr)} false positives,`;
  at("card").textContent = [
    `${architecture}${score ? ` · ${score}` : ""} · version ${card.versions[0]}`,
    threshold ? `${rate} from ${normals} normal images` : "not calibrated: no decisions",
  ].join(" · ");
}

// ---------------------------------------------------------------- scoring

// What is sent of a file, and of an object that the endpoint shall read itself.
const dropped = (file) => ({ name: file.name, body: file,
  kind: TYPES[file.name.split(".").pop().toLowerCase()] || "application/octet-stream" });
const stored = (uri) => ({ name: uri, body: JSON.stringify({ uris: [uri] }),
                           kind: "application/json" });

async function score(images) {
  at("problem").hidden = true;
  at("drop").setAttribute("aria-busy", "true");
  for (const { name, body, kind } of images) {
    at("status").textContent = `Scoring ${name}`;
    const row = { name, card };
    try {
      const path = `/v2/models/${encodeURIComponent(card.name)}/score`;
      row.answer = await ask(`${path}?map=png8&reconstruction=png8`,
                             { method: "POST", body, headers: { "Content-Type": kind } });
      row.output = row.answer.outputs[0];
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (error.status === 401) { complain(error); break; }
      row.refused = error;
    }
    list(row);
    await show(row);
  }
  at("drop").removeAttribute("aria-busy");
}

function decision({ output, refused }) {
  if (refused) return ["failed", "Not scored"];
  if (output.label === null) return ["open", "No decision"];
  return output.label === "abnormal" ? ["abnormal", "Abnormal"] : ["normal", "Normal"];
}

function list(row) {
  const { output, name } = row;
  const [kind, word] = decision(row);
  const line = at("rows").insertRow(0);
  const head = document.createElement("th");
  head.scope = "row";
  const button = document.createElement("button");
  const label = document.createElement("span");
  label.textContent = name;
  if (output) {
    const thumb = new Image();
    Object.assign(thumb, { src: output.image, alt: "" });
    button.append(thumb);
  }
  button.append(label);
  button.addEventListener("click", () => show(row).then(() => at("result").focus()));
  head.append(button);
  line.append(head);
  cell(line, word, kind);
  cell(line, output ? digits(output.score) : "", "number");
  cell(line, output && output.p_value !== null ? digits(output.p_value) : "", "number");
  row.line = line;
  at("session").hidden = false;
}

function cell(line, text, kind) {
  const made = line.insertCell();
  made.textContent = text;
  made.className = kind;
}

// ---------------------------------------------------------------- one result

async function show(row) {
  if (shown) shown.line.removeAttribute("aria-current");
  shown = row;
  row.line.setAttribute("aria-current", "true");
  at("drop").classList.add("small");
  at("result").hidden = Boolean(row.refused);
  at("problem").hidden = true;
  if (row.refused) {
    complain(row.refused, row.name);
    return;
  }
  const { output, answer, name } = row;
  const [kind, word] = decision(row);
  at("result").className = `result is-${kind}`;
  at("verdict").textContent = word;
  at("sentence").textContent = sentence(row);
  at("score").textContent = digits(output.score);
  at("threshold").textContent = output.threshold ? digits(output.threshold.value) : "–";
  at("p-value").textContent = output.p_value === null ? "–" : digits(output.p_value);
  ruler(output);
  picture("image", output.image, `${name}, as the model sees it`);
  picture("under", output.image, "");
  at("reconstruction-view").hidden = !output.reconstruction;
  if (output.reconstruction) {
    picture("reconstruction", output.reconstruction, `${name}, as it would look if it were normal`);
  }
  at("map-view").hidden = !output.map;
  if (output.map) await heat(output.map, row.card.parameters.map_range);
  const { queue, decode, infer } = answer.timing_ms;
  at("details").textContent = [
    `${name}`, `${answer.model_name} version ${answer.model_version}`, `request ${answer.id}`,
    output.threshold && `threshold ${output.threshold.id}`, `preprocessing ${output.preprocess}`,
    `${Math.round(queue + decode + infer)} ms`, ...output.warnings,
  ].filter(Boolean).join(" · ");
  at("status").textContent = `${name}: ${word}. ${at("sentence").textContent}`;
}

function sentence({ output, card: { parameters } }) {
  if (output.label === null) return "This model is not calibrated, so its score has no threshold.";
  const side = output.label === "abnormal" ? "above" : "not above";
  const normals = parameters.calibration_images;
  const higher = Math.round(output.p_value * (normals + 1)) - 1;
  const count = higher === 0 ? "None" : higher;
  return `The score is ${side} the threshold. ${count} of the ${normals} normal images ` +
         `it was set on ${higher === 1 ? "scores" : "score"} as high as this one.`;
}

function ruler({ score: value, threshold, label }) {
  at("scale").hidden = !threshold;
  if (!threshold) return;
  const end = nice(Math.max(2 * threshold.value, 1.1 * value));
  const place = (number) => `${(100 * Math.min(Math.max(number / end, 0), 1)).toFixed(2)}%`;
  at("normal-zone").style.width = place(threshold.value);
  at("threshold-mark").style.left = place(threshold.value);
  at("threshold-tick").style.left = place(threshold.value);
  at("score-mark").style.left = place(value);
  at("scale-start").hidden = threshold.value < 0.18 * end;  // room for the threshold's label
  at("threshold-tick").textContent = `threshold ${digits(threshold.value)}`;
  at("scale-end").textContent = digits(end);
  at("scale").setAttribute("aria-label",
    `Score ${digits(value)}, threshold ${digits(threshold.value)}: ${label}`);
}

function picture(id, source, alt) {
  const image = at(id);
  image.alt = alt;
  image.src = source;
  image.onload = () => image.classList.toggle("crisp", image.naturalWidth < 128);
}

async function heat(source, [low, high]) {
  const image = new Image();
  image.src = source;
  await image.decode();
  const { naturalWidth: width, naturalHeight: height } = image;
  const canvas = Object.assign(at("map"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, width, height);
  let peak = 0;
  for (let i = 0; i < pixels.data.length; i += 4) {
    const level = pixels.data[i];
    peak = Math.max(peak, level);
    pixels.data.set(colour(level / 255), i);
  }
  context.putImageData(pixels, 0, 0);
  canvas.classList.toggle("crisp", width < 128);
  const value = digits(low + (high - low) * peak / 255);
  canvas.setAttribute("aria-label",
    `Anomaly map; its highest value is ${peak === 255 ? "at least " : ""}${value}`);
  at("map-low").textContent = digits(low);
  at("map-high").textContent = `≥ ${digits(high)}`;
  at("legend").setAttribute("aria-label",
    `Colours from dark at ${digits(low)} to bright at ${digits(high)} and above, ` +
    "the same for every image of this model");
}

function colour(share) {
  const place = share * (INFERNO.length - 1);
  const below = Math.min(Math.floor(place), INFERNO.length - 2);
  return INFERNO[below].map((from, k) => from + (INFERNO[below + 1][k] - from) * (place - below));
}

function drawRamp() {
  const context = at("ramp").getContext("2d");
  const pixels = context.createImageData(256, 1);
  for (let level = 0; level < 256; level++) {
    pixels.data.set([...colour(level / 255), 255], 4 * level);
  }
  context.putImageData(pixels, 0, 0);
}

function digits(number) {
  return Number(number.toPrecision(3)).toString();
}

function percent(share) {
  return `${digits(100 * share)} %`;
}

function nice(number) {
  const unit = 10 ** Math.floor(Math.log10(number || 1));
  return Math.ceil(number / unit * 2) / 2 * unit;
}

// ---------------------------------------------------------------- wiring

at("file").addEventListener("change", ({ target }) => {
  const files = [...target.files];
  target.value = "";  // the same file may be chosen again
  score(files.map(dropped));
});

at("bucket").addEventListener("submit", (event) => {
  event.preventDefault();
  score([stored(at("address").value.trim())]);
});

for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop" && card && event.dataTransfer.files.length) score([...event.dataTransfer.files].map(dropped));
  });
}

at("opacity").addEventListener("input", ({ target }) => {
  at("map").style.opacity = target.value / 100;
});
at("model").addEventListener("change", () => choose().catch((error) => complain(error)));
at("access").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", at("token").value);
  start();
});

drawRamp();
start();
