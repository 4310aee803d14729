// Draws lanes of tokens from plain data. Text reaches the page through textContent alone, so nothing in it is ever markup.
function make(tag, className, text = "") {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text;
  return node;
}

function drawCell(cell) {
  const node = make("span", `sp-cell sp-${cell.kind.replace(/\W/g, "-")}`, cell.text);
  if (cell.path) node.classList.add(`sp-${cell.path}-path`);
  if (cell.cf) node.classList.add("sp-cf");
  if (cell.bg) { node.style.backgroundColor = cell.bg; node.style.color = cell.fg; }
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
  status.setAttribute("role", "status");
  detail.setAttribute("aria-live", "polite");
  el.classList.add("sp-view");
  el.append(...(model.get("below") ? [status, lanes, detail, picture] : [picture, status, lanes, detail]));
  el.append(make("div", "sp-lanes sp-legend"));

  function choose(strip, index) {           // one token of a strip: from the mouse or from the arrow keys
    const all = strip.children;
    if (!all.length) return;
    strip.dataset.at = Math.max(0, Math.min(all.length - 1, index));
    for (const other of lanes.querySelectorAll(".sp-chosen")) other.classList.remove("sp-chosen");
    const node = all[strip.dataset.at];
    node.classList.add("sp-chosen");
    if (document.activeElement === strip) node.scrollIntoView({ block: "nearest" });
    detail.textContent = node.title;
  }

  function drawLane(lane, strip, title, summary) {
    title.textContent = lane.title;
    summary.textContent = lane.summary;
    const bottom = strip.scrollTop + strip.clientHeight >= strip.scrollHeight - 4;
    strip.replaceChildren(...lane.cells.map(drawCell));
    if (model.get("follow") && bottom) strip.scrollTop = strip.scrollHeight;
    strip.setAttribute("aria-label", `${lane.title}: ${lane.summary}. Arrow keys read one token after another.`);
  }

  function frame() {
    const box = make("section", "sp-lane");
    const strip = make("div", "sp-strip");
    strip.tabIndex = 0;
    strip.setAttribute("role", "group");
    strip.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 10, ArrowLeft: -1, ArrowUp: -10, Home: -1e9, End: 1e9 }[event.key];
      if (!step) return;
      event.preventDefault();
      event.stopPropagation();
      choose(strip, Number(strip.dataset.at ?? -1) + step);
    });
    strip.addEventListener("mouseover", (event) => {
      const cell = event.target.closest(".sp-cell");
      if (cell) choose(strip, [...strip.children].indexOf(cell));
    });
    box.append(make("div", "sp-title"), make("div", "sp-summary"), strip);
    return box;
  }

  function drawLanes() {
    const wanted = model.get("lanes");
    while (lanes.children.length < wanted.length) lanes.append(frame());
    while (lanes.children.length > wanted.length) lanes.lastChild.remove();
    lanes.classList.toggle("sp-beside", model.get("beside"));
    wanted.forEach((lane, i) => {
      const [title, summary, strip] = lanes.children[i].children;
      drawLane(lane, strip, title, summary);
    });
    detail.textContent = wanted.length ? "Point at a token, or move through a strip with the arrow keys." : "";
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

  const legend = model.get("legend");
  if (legend.length) el.lastChild.append(make("span", "sp-summary", `${legend[0].title}: `), ...legend[0].cells.map(drawCell));
  model.on("change:lanes", drawLanes);
  model.on("change:picture change:alt", drawPicture);
  model.on("change:status change:failed", drawStatus);
  drawLanes();
  drawPicture();
  drawStatus();
}

export default { render };
