"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const names = Object.keys(data.curves[data.metrics[0].name]);
  const colour = (name) => `var(--c${names.indexOf(name) % 6})`;
  const shortly = (value, digits) => value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

  function choices(box, labels, chosen, act) {
    const buttons = labels.map((label, i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = label;
      button.onclick = () => { press(i); act(i); };
      box.append(button);
      return button;
    });
    const press = (i) => buttons.forEach((b, j) => b.setAttribute("aria-pressed", String(i === j)));
    press(chosen);
  }

  // -- curves ---------------------------------------------------------------------------

  const NS = "http://www.w3.org/2000/svg";
  const hidden = new Set();
  let metric = data.metrics[0];

  function draw(tag, attributes, parent, text) {
    const node = document.createElementNS(NS, tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    parent.append(node);
    return node;
  }

  function ticks(low, high, count) {
    const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
    const found = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) found.push(i * step + 0);
    return { found, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
  }

  const at = (points, bpp) => {  // linear between points; null outside
    for (let i = 1; i < points.length; i++) {
      const [a, b] = [points[i - 1], points[i]];
      if (bpp >= a.bpp && bpp <= b.bpp) return a.value + (b.value - a.value) * (bpp - a.bpp) / (b.bpp - a.bpp || 1);
    }
    return null;
  };

  function chart() {
    const box = byId("chart"), width = Math.max(300, box.clientWidth), height = Math.round(Math.min(560, Math.max(320, width * 0.56)));
    const margin = { left: 46, right: width > 600 ? 92 : 12, top: 18, bottom: 44 };
    const shown = names.filter((name) => !hidden.has(name) && data.curves[metric.name][name].length);
    const sorted = Object.fromEntries(shown.map((name) => [name, [...data.curves[metric.name][name]].sort((a, b) => a.bpp - b.bpp)]));
    const ours = data.curves[metric.name][names[0]];
    const right = 1.25 * Math.max(...ours.map((p) => p.bpp));
    const inside = Object.values(sorted).flatMap((points) => [...points.filter((p) => p.bpp <= right).map((p) => p.value), at(points, right)])
      .filter((value) => value !== undefined && value !== null);
    box.replaceChildren();
    if (!inside.length) { box.textContent = "Nothing to show."; return; }
    let [low, high] = [Math.min(...inside), Math.max(...inside)];
    const pad = (high - low || 1) * 0.04;
    [low, high] = [low - pad, high + pad];
    const x = (bpp) => margin.left + bpp / right * (width - margin.left - margin.right);
    const y = (value) => height - margin.bottom - (value - low) / (high - low) * (height - margin.top - margin.bottom);
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}` }, box);
    const clip = draw("clipPath", { id: "area" }, draw("defs", {}, svg));
    draw("rect", { x: margin.left, y: margin.top - 6, width: width - margin.left - margin.right, height: height - margin.top - margin.bottom + 6 }, clip);
    const across = ticks(0, right, width > 600 ? 8 : 4), up = ticks(low, high, 8);
    for (const value of up.found) {
      draw("line", { class: "grid", x1: margin.left, x2: width - margin.right, y1: y(value), y2: y(value) }, svg);
      draw("text", { x: margin.left - 8, y: y(value) + 4, "text-anchor": "end" }, svg, shortly(value, up.digits));
    }
    for (const value of across.found) draw("text", { x: x(value), y: height - margin.bottom + 20, "text-anchor": "middle" }, svg, shortly(value, across.digits));
    draw("line", { class: "axis", x1: margin.left, x2: width - margin.right, y1: height - margin.bottom, y2: height - margin.bottom }, svg);
    draw("text", { x: width - margin.right, y: height - 6, "text-anchor": "end" }, svg, "bits per pixel");
    draw("text", { x: margin.left + 6, y: margin.top + 4 }, svg, metric.label);
    const ends = [];
    for (const name of [...shown].reverse()) {  // ours last, on top
      const points = sorted[name], stroke = `stroke:${colour(name)}`;
      draw("path", { d: "M" + points.map((p) => `${x(p.bpp).toFixed(1)} ${y(p.value).toFixed(1)}`).join("L"), style: stroke,
                     class: name === names[0] ? "ours" : "", "clip-path": "url(#area)" }, svg);
      for (const p of points) if (p.bpp <= right) draw("circle", { cx: x(p.bpp), cy: y(p.value), r: name === names[0] ? 4.5 : 2.8, style: `fill:${colour(name)}` }, svg);
      const end = points[points.length - 1].bpp > right ? { bpp: right, value: at(points, right) } : points[points.length - 1];
      ends.push({ name, x: x(end.bpp) + 9, y: y(end.value) + 4 });
    }
    if (margin.right > 20) {
      ends.sort((a, b) => a.y - b.y);
      ends.forEach((end, i) => {
        for (const above of ends.slice(0, i)) if (Math.abs(end.x - above.x) < 100 && end.y < above.y + 15) end.y = above.y + 15;
        draw("text", { x: end.x, y: end.y, class: "name", style: `fill:${colour(end.name)}` }, svg, end.name);
      });
    }
    hover(svg, { x, y, right, width, height, margin, shown, sorted });
  }

  function hover(svg, { x, right, width, height, margin, shown, sorted }) {
    const layer = draw("g", { class: "tip", visibility: "hidden" }, svg);
    svg.onpointermove = (event) => {
      const place = svg.getBoundingClientRect(), px = (event.clientX - place.left) * width / place.width;
      const bpp = (px - margin.left) / (width - margin.left - margin.right) * right;
      if (bpp < 0 || bpp > right) { layer.setAttribute("visibility", "hidden"); return; }
      const rows = shown.map((name) => [name, at(sorted[name], bpp)]).filter((row) => row[1] !== null).sort((a, b) => b[1] - a[1]);
      layer.replaceChildren();
      layer.setAttribute("visibility", "visible");
      draw("line", { class: "cursor", x1: px, x2: px, y1: margin.top, y2: height - margin.bottom }, layer);
      const tall = 26 + 18 * rows.length, left = px > width / 2 ? px - 172 : px + 12, top = height - margin.bottom - tall - 8;
      draw("rect", { x: left, y: top, width: 160, height: tall, rx: 8 }, layer);
      draw("text", { x: left + 12, y: top + 18 }, layer, `${shortly(bpp, 2)} bits per pixel`);
      rows.forEach(([name, value], i) => {
        draw("text", { x: left + 12, y: top + 36 + 18 * i, class: "name", style: `fill:${colour(name)}` }, layer, name);
        draw("text", { x: left + 148, y: top + 36 + 18 * i, "text-anchor": "end" }, layer, shortly(value, 2));
      });
    };
    svg.onpointerleave = () => layer.setAttribute("visibility", "hidden");
  }

  choices(byId("metrics"), data.metrics.map((m) => m.label), 0, (i) => { metric = data.metrics[i]; chart(); });
  for (const name of names) {
    const button = document.createElement("button"), swatch = document.createElement("i");
    button.type = "button";
    swatch.style.setProperty("--c", colour(name));
    button.append(swatch, name);
    button.setAttribute("aria-pressed", "true");
    button.onclick = () => {
      hidden.has(name) ? hidden.delete(name) : hidden.add(name);
      button.setAttribute("aria-pressed", String(!hidden.has(name)));
      chart();
    };
    byId("legend").append(button);
  }
  chart();
  let drawn = byId("chart").clientWidth;
  new ResizeObserver(() => {
    if (byId("chart").clientWidth !== drawn) { drawn = byId("chart").clientWidth; chart(); }
  }).observe(byId("chart"));

  // -- two versions of a picture ----------------------------------------------------------

  if (data.pictures.length) {
    const state = { picture: 0, rate: data.pictures[0].rates.length > 1 ? 1 : 0 };
    const compare = byId("compare"), split = byId("split");
    const selects = { left: byId("left"), right: byId("right") };
    const versions = data.pictures[0].rates[0].versions.map((v) => v.codec);
    for (const [side, select] of Object.entries(selects)) {
      for (const name of ["original", ...versions]) select.append(new Option(name, name));
      select.value = side === "right" ? versions[0] : versions[1] || "original";
      select.onchange = show;
    }
    function caption(element, name, version) {
      const title = document.createElement("b");
      title.textContent = name;
      if (version) title.style.color = colour(name);
      element.replaceChildren(title, version
        ? `${version.bytes.toLocaleString("en")} bytes, ${shortly(version.bpp, 3)} bits per pixel, ${shortly(version.psnr, 2)} dB`
          + (version.larger ? " (its smallest file)" : "")
        : "24 bits per pixel");
    }
    function show() {
      const picture = data.pictures[state.picture], rate = picture.rates[state.rate];
      for (const [side, select] of Object.entries(selects)) {
        const version = rate.versions.find((v) => v.codec === select.value), image = byId(`image-${side}`);
        image.src = version ? version.image : picture.original;
        image.alt = `${picture.name}, ${select.value}`;
        image.width = picture.box[2] - picture.box[0];
        image.height = picture.box[3] - picture.box[1];
        caption(byId(`caption-${side}`), select.value, version);
      }
      move();
    }
    function move() {
      compare.style.setProperty("--at", split.value);
      compare.style.setProperty("--height", `${compare.querySelector(".stage").clientHeight}px`);
    }
    split.oninput = move;
    addEventListener("resize", move);
    byId("image-left").onload = move;
    byId("zoom").onchange = (event) => compare.classList.toggle("zoomed", event.target.checked);
    choices(byId("pictures"), data.pictures.map((p) => p.name), 0, (i) => { state.picture = i; show(); });
    choices(byId("rates"), data.pictures[0].rates.map((r) => `quality ${r.quality}`), state.rate, (i) => { state.rate = i; show(); });
    if (versions.length > 1) {  // the headline's two, of a picture in the middle of the order
      const picture = data.pictures[data.pictures.length >> 1];
      [["left", versions[1]], ["right", versions[0]]].forEach(([side, name]) => {
        const version = picture.rates[state.rate].versions.find((v) => v.codec === name);
        Object.assign(byId(`pair-${side}`), { src: version.image, alt: `${picture.name}, ${name}` });
        caption(byId(`pair-caption-${side}`), name, version);
      });
      byId("pair").hidden = false;
    }
    byId("look").hidden = false;
    show();
  }
})();
