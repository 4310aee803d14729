// Draws lanes of tokens from plain data.
// Text reaches the page through textContent alone, so nothing in it is ever markup.

const ADVICE = "Point at a token, or move through a strip with the arrow keys.";

// How many tokens a key moves on; Home and End go past either end and are cut there.
const STEPS = {
  ArrowRight: 1,
  ArrowDown: 10,
  ArrowLeft: -1,
  ArrowUp: -10,
  Home: -1e9,
  End: 1e9,
};

function make(tag, className, text = "") {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text;
  return node;
}

function drawCell(cell) {
  const node = make("span", `sp-cell sp-${cell.kind.replace(/\W/g, "-")}`, cell.text);
  if (cell.path) node.classList.add(`sp-${cell.path}-path`);
  if (cell.counterfactual) node.classList.add("sp-counterfactual");
  if (cell.shade !== null) {
    node.classList.add(`sp-shade-${cell.shade}`); // of the theme, see strips.css
  } else if (cell.bg) {
    node.style.backgroundColor = cell.bg;
    node.style.color = cell.fg;
  }
  if (cell.mark) node.append(make("sup", "sp-mark", cell.mark));
  node.title = cell.detail;
  node.dataset.text = cell.text;
  return node;
}

function render({ model, el }) {
  const picture = make("img", "sp-picture");
  const lanes = make("div", "sp-lanes");
  const detail = make("div", "sp-detail");
  const status = make("div", "sp-status");
  const key = make("div", "sp-lanes sp-legend");
  status.setAttribute("role", "status");
  detail.setAttribute("aria-live", "polite");
  el.classList.add("sp-view");
  if (model.get("below")) {
    el.append(status, key, lanes, detail, picture);
  } else {
    el.append(picture, status, key, lanes, detail);
  }

  // Choose one token of a strip, by the mouse or by a key, and say everything about it.
  function choose(strip, index) {
    const tokens = strip.children;
    if (!tokens.length) return;
    const place = Math.max(0, Math.min(tokens.length - 1, index));
    strip.dataset.chosen = place;
    for (const other of lanes.querySelectorAll(".sp-chosen")) other.classList.remove("sp-chosen");
    const token = tokens[place];
    token.classList.add("sp-chosen");
    if (document.activeElement === strip) token.scrollIntoView({ block: "nearest" });
    detail.textContent = token.title;
  }

  // An empty lane: title, summary and strip, with the mouse and the keys wired.
  function makeLane() {
    const section = make("section", "sp-lane");
    const strip = make("div", "sp-strip");
    strip.tabIndex = 0;
    strip.setAttribute("role", "group");
    strip.addEventListener("keydown", (event) => {
      const step = STEPS[event.key];
      if (!step) return;
      event.preventDefault();
      event.stopPropagation();
      choose(strip, Number(strip.dataset.chosen ?? -1) + step);
    });
    strip.addEventListener("mouseover", (event) => {
      const cell = event.target.closest(".sp-cell");
      if (cell) choose(strip, [...strip.children].indexOf(cell));
    });
    section.append(make("div", "sp-title"), make("div", "sp-summary"), strip);
    return section;
  }

  function fillLane(section, lane) {
    const [title, summary, strip] = section.children;
    title.textContent = lane.title;
    summary.textContent = lane.summary;
    // Who has scrolled up in a growing lane stays there.
    const atEnd = strip.scrollTop + strip.clientHeight >= strip.scrollHeight - 4;
    strip.replaceChildren(...lane.cells.map(drawCell));
    if (model.get("follow") && atEnd) strip.scrollTop = strip.scrollHeight;
    const advice = "Arrow keys read one token after another.";
    strip.setAttribute("aria-label", `${lane.title}: ${lane.summary}. ${advice}`);
  }

  function drawLanes() {
    const wanted = model.get("lanes");
    while (lanes.children.length < wanted.length) lanes.append(makeLane());
    while (lanes.children.length > wanted.length) lanes.lastChild.remove();
    lanes.classList.toggle("sp-beside", model.get("beside"));
    wanted.forEach((lane, i) => fillLane(lanes.children[i], lane));
    detail.textContent = wanted.some((lane) => lane.cells.length) ? ADVICE : "";
  }

  function drawPicture() {
    const svg = model.get("picture");
    picture.hidden = !svg;
    picture.src = svg ? `data:image/svg+xml,${encodeURIComponent(svg)}` : "";
    picture.alt = model.get("alt");
  }

  function drawStatus() {
    status.textContent = model.get("status");
    status.classList.toggle("sp-error", model.get("failed"));
  }

  function drawAge() {
    lanes.classList.toggle("sp-old", model.get("old"));
  }

  function drawLegend() {
    for (const lane of model.get("legend")) {
      key.append(make("span", "sp-summary", `${lane.title}: `), ...lane.cells.map(drawCell));
    }
  }

  model.on("change:lanes", drawLanes);
  model.on("change:picture change:alt", drawPicture);
  model.on("change:status change:failed", drawStatus);
  model.on("change:old", drawAge);
  drawLegend();
  drawAge();
  drawLanes();
  drawPicture();
  drawStatus();
}

export default { render };
