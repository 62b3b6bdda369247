"use strict";
// Charts, sortable tables, downloads and filters of the report. The page is complete without this script: it replaces
// each drawing by a chart of the same values. All text is set as text, never parsed as HTML.
(() => {
  const data = JSON.parse(document.getElementById("charts").textContent);
  const { arms, charts } = data;
  const hidden = new Set();
  const drawn = [];
  const SVG = "http://www.w3.org/2000/svg";

  // --- elements ---
  const html = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "style") Object.assign(element.style, value);
      else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== false && value !== null) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children);
    return element;
  };
  const svg = (tag, attributes = {}, ...children) => {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "style") Object.assign(element.style, value);
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  };
  const colour = (arm) => `var(${arms[arm].colour})`;

  // --- numbers ---
  const tokens = (value) => {
    for (const [size, sign] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]])
      if (Math.abs(value) >= size) return `${+(value / size).toPrecision(3)} ${sign}`;
    return String(+value.toPrecision(4));
  };
  const number = (value) => (Math.abs(value) >= 1e4 ? tokens(value) : String(+value.toPrecision(4)));
  const fixed = (value) => value.toFixed(1).replace("-", "−");
  const signed = (value) => (value > 0 ? "+" : "") + fixed(value);
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

  const linearTicks = (low, high, most) => {
    const raw = (high - low) / Math.max(1, most);
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw);
    const ticks = [];
    for (let tick = Math.ceil(low / step - 1e-9) * step; tick <= high + 1e-9 * step; tick += step)
      ticks.push(+tick.toPrecision(10));
    return ticks;
  };
  const logTicks = (low, high, most) => {
    for (const digits of [[1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 3, 5], [1, 3], [1]]) {
      const ticks = [];
      for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
        for (const digit of digits) {
          const tick = +(digit * 10 ** power).toPrecision(3);
          if (tick >= low && tick <= high) ticks.push(tick);
        }
      if (ticks.length <= most + 1) return ticks.length > 1 ? ticks : linearTicks(low, high, most);
    }
    return linearTicks(low, high, most);
  };

  // --- tooltip ---
  const tip = html("div", { class: "tip", role: "status", hidden: true });
  document.body.append(tip);
  const showTip = (event, title, rows) => {
    tip.replaceChildren(html("b", {}, title));
    for (const [arm, name, value] of rows)
      tip.append(
        html("div", {},
          html("i", { class: "swatch", style: { background: arm === null ? "transparent" : colour(arm) } }),
          html("span", {}, name), html("b", {}, value)));
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const left = event.clientX + 16 + box.width > innerWidth ? event.clientX - box.width - 12 : event.clientX + 16;
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${Math.max(4, Math.min(event.clientY + 14, innerHeight - box.height - 8))}px`;
  };
  const hideTip = () => { tip.hidden = true; };
  addEventListener("scroll", hideTip, { passive: true });
  const withTip = (element, title, rows) => {
    element.addEventListener("pointermove", (event) => showTip(event, title, rows));
    element.addEventListener("pointerleave", hideTip);
    return element;
  };

  // --- marks ---
  const marker = (arm, x, y, size, opacity = 1) => {
    const r = size;
    const shapes = {
      o: `M${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0`,
      s: `M${-r},${-r}h${2 * r}v${2 * r}h${-2 * r}z`,
      D: `M0,${-1.3 * r}L${1.3 * r},0L0,${1.3 * r}L${-1.3 * r},0z`,
      "^": `M0,${-1.2 * r}L${1.2 * r},${r}H${-1.2 * r}z`,
      v: `M0,${1.2 * r}L${1.2 * r},${-r}H${-1.2 * r}z`,
      P: `M${-r / 2},${-r}h${r}v${r / 2}h${r / 2}v${r}h${-r / 2}v${r / 2}h${-r}v${-r / 2}h${-r / 2}v${-r}h${r / 2}z`,
      p: `M0,${-1.2 * r}L${1.15 * r},${-0.35 * r}L${0.7 * r},${r}H${-0.7 * r}L${-1.15 * r},${-0.35 * r}z`,
      X: `M${-r},${-r}L${-0.3 * r},${-r}L0,${-0.5 * r}L${0.3 * r},${-r}L${r},${-r}L${0.5 * r},0L${r},${r}L${0.3 * r},${r}`
        + `L0,${0.5 * r}L${-0.3 * r},${r}L${-r},${r}L${-0.5 * r},0z`,
    };
    return svg("path", { d: shapes[arms[arm].marker] || shapes.o, transform: `translate(${x},${y})`,
      style: { fill: colour(arm), opacity } });
  };
  const line = (x1, y1, x2, y2, name) => svg("line", { x1, y1, x2, y2, class: name });
  const text = (content, x, y, anchor, name = "tick") => {
    const element = svg("text", { x, y, "text-anchor": anchor, class: name });
    element.textContent = content;
    return element;
  };

  const nameWidth = (content) => {
    const pen = document.createElement("canvas").getContext("2d");
    pen.font = `12px ${getComputedStyle(document.documentElement).getPropertyValue("--sans")}`;
    return pen.measureText(content).width;
  };

  // --- legend: the arms of all charts are shown and hidden together ---
  const legend = (used) => {
    const list = html("div", { class: "legend", role: "group", "aria-label": "Arms shown" });
    for (const arm of used) {
      const sign = svg("svg", { viewBox: "-8 -8 16 16", width: 14, height: 14, "aria-hidden": "true" }, marker(arm, 0, 0, 5));
      list.append(html("button", {
        type: "button", "data-arm": arm, "aria-pressed": String(!hidden.has(arm)),
        onclick: () => { hidden.has(arm) ? hidden.delete(arm) : hidden.add(arm); refresh(); },
      }, sign, arms[arm].title));
    }
    return used.length > 1 ? list : html("span");
  };
  const refresh = () => {
    for (const button of document.querySelectorAll(".legend button"))
      button.setAttribute("aria-pressed", String(!hidden.has(+button.dataset.arm)));
    for (const draw of drawn) draw();
  };
  const armsOf = (entries) => [...new Set(entries.map((entry) => entry.arm))].sort((a, b) => a - b);

  // --- lines over tokens ---
  const smoothed = (values, factor) => {
    let last = values[0];
    return values.map((value) => (last = factor * last + (1 - factor) * value));
  };
  const meanLine = (lines) => {
    const length = Math.min(...lines.map((entry) => entry.tokens.length));
    const at = (name, index) => mean(lines.map((entry) => entry[name][index]));
    const span = [...Array(length).keys()];
    return { tokens: span.map((i) => at("tokens", i)), values: span.map((i) => at("values", i)) };
  };

  const panelLines = (panel, state) => {
    const lines = [];
    const visible = panel.series.filter((entry) => !hidden.has(entry.arm));
    for (const part of ["training", "validation", "test"])
      for (const arm of armsOf(visible)) {
        const group = visible.filter((entry) => entry.arm === arm && entry.part === part).map((entry) => ({
          ...entry,
          values: part === "training" && panel.name !== "throughput" ? smoothed(entry.values, state.smooth) : entry.values,
        }));
        if (!group.length) continue;
        const several = group.length > 1;
        if (several && state.seeds) lines.push(...group.map((entry) => ({ ...entry, main: false })));
        const whole = several ? { ...meanLine(group), arm, part, main: true, name: `mean of ${group.length} seeds` }
          : { ...group[0], main: true, name: `seed ${group[0].seed}` };
        lines.push(whole);
      }
    return lines.filter((entry) => entry.tokens.length);
  };

  const drawPanel = (chart, panel, holder, state) => {
    const width = Math.max(240, holder.clientWidth), height = Math.round(Math.min(300, Math.max(200, width * 0.5)));
    const lines = panelLines(panel, state);
    const log = panel.logarithmic && state.log;
    const values = lines.flatMap((entry) => entry.values).filter((value) => !log || value > 0);
    const figure = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", tabindex: "0",
      "aria-label": `${panel.title || panel.name} over ${chart.x}` });
    if (!values.length) { figure.append(text("no arm shown", width / 2, height / 2, "middle")); return figure; }
    const box = { left: 46, right: width - 10, top: 10, bottom: height - 24 };
    const last = Math.max(...lines.flatMap((entry) => entry.tokens));
    let low = Math.min(...values), high = Math.max(...values);
    if (log) { low /= 1.06; high *= 1.06; } else {
      const margin = 0.06 * (high - low) || Math.abs(high) * 0.1 || 1;
      low = Math.max(low - margin, low >= 0 ? 0 : -Infinity); high += margin;
      if (panel.unit === "%") { high = Math.min(100, Math.max(high, 3)); }
    }
    const scale = log ? Math.log : (value) => value;
    const X = (value) => box.left + ((box.right - box.left) * value) / last;
    const Y = (value) => box.bottom - ((box.bottom - box.top) * (scale(value) - scale(low))) / (scale(high) - scale(low));
    for (const tick of (log ? logTicks : linearTicks)(low, high, Math.floor(height / 45)))
      figure.append(line(box.left, Y(tick), box.right, Y(tick), "grid"),
        text(panel.unit === "%" ? `${number(tick)} %` : number(tick), box.left - 6, Y(tick) + 4, "end"));
    for (const tick of linearTicks(0, last, Math.floor(width / 90)))
      figure.append(text(tokens(tick), X(tick), height - 6, tick === 0 ? "start" : X(tick) > width - 30 ? "end" : "middle"));
    const shown = armsOf(lines);
    if (shown.length === 1)
      for (const [end] of (chart.stages[shown[0]] || []).slice(0, -1))
        if (end <= last) figure.append(line(X(end), box.top, X(end), box.bottom, "stage"));
    for (const entry of lines) {
      const points = entry.tokens.map((token, i) => [X(token), Y(entry.values[i])]).filter(([, y]) => Number.isFinite(y));
      const d = points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)},${y.toFixed(1)}`).join("");
      figure.append(svg("path", { d, class: `line ${entry.part} ${entry.main ? "main" : "seed"}`,
        style: { stroke: colour(entry.arm) } }));
      if (entry.main && (points.length < 3 || entry.part === "test"))
        for (const [x, y] of points) figure.append(marker(entry.arm, x, y, 3.5));
    }
    const cursor = line(0, box.top, 0, box.bottom, "cursor");
    cursor.style.visibility = "hidden";
    figure.append(cursor);
    const at = (event, x) => {
      const token = Math.min(last, Math.max(0, ((x - box.left) / (box.right - box.left)) * last));
      cursor.style.visibility = "visible";
      cursor.setAttribute("x1", X(token)); cursor.setAttribute("x2", X(token));
      const rows = lines.filter((entry) => entry.main).map((entry) => {
        let best = 0;
        entry.tokens.forEach((value, i) => { if (Math.abs(value - token) < Math.abs(entry.tokens[best] - token)) best = i; });
        const stage = (chart.stages[entry.arm] || []).find(([end]) => entry.tokens[best] <= end);
        const part = panel.series.some((other) => other.part === "validation") ? ` · ${entry.part}` : "";
        return [entry.arm, `${arms[entry.arm].title}${part}${stage && shown.length === 1 ? ` · ${stage[1]}` : ""}`,
          panel.unit === "%" ? `${fixed(entry.values[best])} %` : number(entry.values[best])];
      });
      showTip(event, `${tokens(token)} ${chart.x.replace(/^training | at the end of the stage$/g, "")}`, rows);
    };
    figure.addEventListener("pointermove", (event) => at(event, event.clientX - figure.getBoundingClientRect().left));
    figure.addEventListener("pointerleave", () => { hideTip(); cursor.style.visibility = "hidden"; });
    let key = 0.5;
    figure.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -0.02, ArrowRight: 0.02 }[event.key];
      if (!step) return;
      event.preventDefault();
      key = Math.min(1, Math.max(0, key + step));
      const place = figure.getBoundingClientRect(), x = box.left + key * (box.right - box.left);
      at({ clientX: place.left + x, clientY: place.top + box.top }, x);
    });
    figure.addEventListener("blur", () => { hideTip(); cursor.style.visibility = "hidden"; });
    return figure;
  };

  const lineChart = (chart, holder) => {
    const state = { log: true, smooth: 0, seeds: true };
    const entries = chart.panels.flatMap((panel) => panel.series);
    const redraw = () => draw();
    const several = entries.some((entry) => entries.some((other) => other.arm === entry.arm && other.seed !== entry.seed));
    const tools = html("div", { class: "tools" });
    if (chart.panels.some((panel) => panel.logarithmic))
      tools.append(html("label", {}, html("input", { type: "checkbox", checked: true,
        onchange: (event) => { state.log = event.target.checked; redraw(); } }), "logarithmic"));
    if (entries.some((entry) => entry.part === "training"))
      tools.append(html("label", {}, "smoothing", html("input", { type: "range", min: 0, max: 0.95, step: 0.05, value: 0,
        "aria-label": "Smoothing of training curves", oninput: (event) => { state.smooth = +event.target.value; redraw(); } })));
    if (several)
      tools.append(html("label", {}, html("input", { type: "checkbox", checked: true,
        onchange: (event) => { state.seeds = event.target.checked; redraw(); } }), "single seeds"));
    if (entries.some((entry) => entry.part === "validation"))
      tools.append(html("span", { class: "key" }, html("i", { class: "solid" }), "training ", html("i", { class: "dashed" }), "validation"));
    const grid = html("div", { class: chart.panels.length > 1 ? "panels" : "panels single" });
    const holders = chart.panels.map((panel) => {
      const body = html("div", { class: "plot" });
      grid.append(html("div", { class: "panel" },
        panel.title ? html("h4", {}, panel.title, " ", html("small", {}, panel.unit)) : "", body));
      return body;
    });
    holder.append(legend(armsOf(entries)), tools, grid, html("p", { class: "axis" }, chart.x));
    const draw = () => holders.forEach((body, i) => body.replaceChildren(drawPanel(chart, chart.panels[i], body, state)));
    return draw;
  };
  const lineRows = (chart) => chart.panels.flatMap((panel) => panel.series.flatMap((entry) => entry.tokens.map((token, i) => ({
    quantity: panel.name, part: entry.part, arm: arms[entry.arm].title, seed: entry.seed, tokens: token, value: entry.values[i] }))));

  // --- dots by category ---
  const dotChart = (chart, holder) => {
    const body = html("div", { class: "plot" });
    holder.append(legend(armsOf(chart.dots)), body);
    return () => {
      const width = Math.max(240, body.clientWidth);
      const dots = chart.dots.filter((dot) => !hidden.has(dot.arm));
      const shown = armsOf(dots), count = chart.categories.length;
      const perSlot = shown.length ? Math.max(...shown.map((arm) => dots.filter((dot) => dot.arm === arm && dot.category === dots[0].category).length)) : 1;
      const upright = (width - 60) / count >= Math.max(70, shown.length * perSlot * 7 + 16);
      const slot = upright ? (width - 60) / count : Math.max(44, shown.length * perSlot * 9 + 34);
      const height = upright ? 300 : count * slot + 30;
      const ends = dots.flatMap((dot) => [dot.value, dot.low ?? dot.value, dot.high ?? dot.value]);
      const low = Math.max(0, Math.min(...ends, 100) - 2), high = Math.min(100, Math.max(...ends, low + 3) + 2);
      const figure = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `${chart.y} by ${chart.x || "cycle"}` });
      const value = upright
        ? (share) => height - 44 - ((height - 56) * (share - low)) / (high - low)
        : (share) => 8 + ((width - 26) * (share - low)) / (high - low);
      const middle = (category) => (upright ? 52 : 18) + slot * (category + 0.5);
      for (const tick of linearTicks(low, high, upright ? 6 : Math.floor(width / 70)))
        figure.append(...(upright
          ? [line(48, value(tick), width - 4, value(tick), "grid"), text(`${number(tick)} %`, 42, value(tick) + 4, "end")]
          : [line(value(tick), 4, value(tick), height - 22, "grid"), text(`${number(tick)} %`, value(tick), height - 6, "middle")]));
      chart.categories.forEach(([name, size], category) => {
        if (upright) figure.append(text(name, middle(category), height - 24, "middle", "name"), text(size, middle(category), height - 8, "middle"));
        else {
          figure.append(text(`${name}${size ? ` · ${size}` : ""}`, 8, middle(category) - slot / 2 + 8, "start", "name"));
        }
      });
      const step = upright ? Math.min(26, (slot - 14) / Math.max(1, shown.length)) : (slot - 30) / Math.max(1, shown.length);
      const paths = new Map();
      for (const dot of dots) {
        const peers = dots.filter((other) => other.arm === dot.arm && other.category === dot.category);
        const inner = (peers.indexOf(dot) - (peers.length - 1) / 2) * (step * 0.8) / peers.length;
        const across = middle(dot.category) + (upright ? 0 : 9) + (shown.indexOf(dot.arm) - (shown.length - 1) / 2) * step + inner;
        const [x, y] = upright ? [across, value(dot.value)] : [value(dot.value), across];
        const group = svg("g", { class: "mark" });
        if (dot.low !== null) {
          const bar = upright ? line(x, value(dot.low), x, value(dot.high), "interval") : line(value(dot.low), y, value(dot.high), y, "interval");
          bar.style.stroke = colour(dot.arm);
          group.append(bar);
        }
        group.append(svg("circle", { cx: x, cy: y, r: 9, class: "hit" }), marker(dot.arm, x, y, 3.6));
        const [name] = chart.categories[dot.category];
        withTip(group, `${name}: ${fixed(dot.value)} %`, [[dot.arm, arms[dot.arm].title, dot.seed === null ? "mean over seeds" : `seed ${dot.seed}`],
          ...(dot.low === null ? [] : [[null, "95 % interval", `${fixed(dot.low)} to ${fixed(dot.high)} %`]])]);
        if (chart.lines) paths.set(dot.arm, [...(paths.get(dot.arm) || []), [dot.category, x, y]]);
        figure.append(group);
      }
      for (const [arm, points] of paths) {
        const steps = [...new Set(points.map(([category]) => category))].map((category) => points.filter((point) => point[0] === category));
        const d = steps.map((group, i) => `${i ? "L" : "M"}${mean(group.map((p) => p[1]))},${mean(group.map((p) => p[2]))}`).join("");
        figure.prepend(svg("path", { d, class: "line seed", style: { stroke: colour(arm) } }));
      }
      body.replaceChildren(figure);
    };
  };
  const dotRows = (chart) => chart.dots.map((dot) => ({ arm: arms[dot.arm].title, group: chart.categories[dot.category][0],
    seed: dot.seed, accuracy: dot.value, low: dot.low, high: dot.high }));

  // --- differences to the baseline ---
  const differenceChart = (chart, holder) => {
    const body = html("div", { class: "plot" });
    holder.append(body, html("p", { class: "axis" }, chart.x));
    return () => {
      const rows = chart.rows.filter((row) => !hidden.has(row.arm));
      const width = Math.max(240, body.clientWidth);
      const names = rows.map((row) => nameWidth(arms[row.arm].title));
      const beside = Math.max(0, ...names) + 24 <= 0.35 * width;  // else above the marks, which leaves them the whole width
      const start = beside ? Math.max(0, ...names) + 24 : 10, slot = beside ? 32 : 46, height = rows.length * slot + 26;
      const seeds = rows.flatMap((row) => row.seeds.map(([, value]) => value)).concat(0);
      const reach = 1.5 * Math.max(Math.max(...seeds) - Math.min(...seeds), 0.5);
      const ends = rows.flatMap((row) => [row.low ?? row.value, row.high ?? row.value]);
      const low = Math.max(Math.min(...seeds, ...ends), Math.min(...seeds) - reach) - 0.5;
      const high = Math.min(Math.max(...seeds, ...ends), Math.max(...seeds) + reach) + 0.5;
      const X = (value) => start + ((width - 10 - start) * (Math.min(high, Math.max(low, value)) - low)) / (high - low);
      const figure = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": "Differences to the baseline" });
      for (const tick of linearTicks(low, high, Math.floor((width - start) / 70)))
        figure.append(line(X(tick), 0, X(tick), height - 22, tick === 0 ? "zero" : "grid"), text(signed(tick).replace(/\.0$/, ""), X(tick), height - 6, "middle"));
      rows.forEach((row, index) => {
        const y = index * slot + (beside ? 16 : 30);
        figure.append(text(arms[row.arm].title, beside ? start - 14 : 10, beside ? y + 4 : y - 14, beside ? "end" : "start", "name"));
        const group = svg("g", { class: "mark" });
        if (row.low !== null) {
          const bar = line(X(row.low), y, X(row.high), y, "interval");
          bar.style.stroke = colour(row.arm);
          group.append(bar);
          for (const [end, x, sign] of [[row.low < low, X(low), "<"], [row.high > high, X(high), ">"]])
            if (end) group.append(text(sign, x, y + 4, sign === "<" ? "start" : "end", "name"));
        }
        for (const [, value] of row.seeds) group.append(svg("circle", { cx: X(value), cy: y, r: 3, style: { fill: colour(row.arm), opacity: 0.45 } }));
        group.append(svg("rect", { x: 0, y: y - 12, width, height: 24, class: "hit" }), marker(row.arm, X(row.value), y, 5));
        withTip(group, `${arms[row.arm].title}: ${signed(row.value)} points`, [
          ...(row.low === null ? [] : [[null, "95 % interval", `${signed(row.low)} to ${signed(row.high)}`]]),
          ...row.seeds.map(([seed, value]) => [row.arm, `seed ${seed}`, signed(value)])]);
        figure.append(group);
      });
      body.replaceChildren(figure);
    };
  };
  const differenceRows = (chart) => chart.rows.flatMap((row) => row.seeds.map(([seed, value]) => ({
    arm: arms[row.arm].title, seed, points: value, mean: row.value, low: row.low, high: row.high })));

  // --- downloads ---
  const quoted = (value) => {
    const content = value === null || value === undefined ? "" : String(value);
    return /[",\n\r]/.test(content) ? `"${content.replaceAll('"', '""')}"` : content;
  };
  const csv = (rows) => {
    const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))];
    return [columns, ...rows.map((row) => columns.map((name) => row[name]))].map((line) => line.map(quoted).join(",")).join("\r\n") + "\r\n";
  };
  const save = (name, type, content) => {
    const address = URL.createObjectURL(new Blob([content], { type }));
    html("a", { href: address, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  };
  const downloads = (name, rows) => html("span", { class: "downloads" },
    html("button", { type: "button", title: `${name}.csv`, onclick: () => save(`${name}.csv`, "text/csv", csv(rows())) }, "CSV"),
    html("button", { type: "button", title: `${name}.json`, onclick: () => save(`${name}.json`, "application/json", JSON.stringify(rows(), null, 1)) }, "JSON"));

  // --- figures ---
  const kinds = { lines: [lineChart, lineRows], dots: [dotChart, dotRows], differences: [differenceChart, differenceRows] };
  for (const figure of document.querySelectorAll("figure[data-chart]")) {
    const chart = charts[figure.dataset.chart];
    if (!chart || !kinds[chart.kind]) continue;
    const holder = html("div", { class: "chart" });
    figure.prepend(holder);
    try {
      const [make, rows] = kinds[chart.kind];
      const draw = make(chart, holder);
      holder.append(downloads(figure.dataset.chart, () => rows(chart)));
      draw();
      drawn.push(draw);
      for (const drawing of figure.querySelectorAll(".drawing")) drawing.hidden = true;
    } catch (error) {
      holder.remove();
      console.error(error);
    }
  }
  for (const name of ["curves"])
    if (charts[name]) for (const element of document.querySelectorAll(`[data-replaced-by="${name}"]`)) element.hidden = true;
  let width = document.documentElement.clientWidth;
  addEventListener("resize", () => {
    if (document.documentElement.clientWidth !== width) { width = document.documentElement.clientWidth; for (const draw of drawn) draw(); }
  });
  document.addEventListener("toggle", (event) => { if (event.target.open) for (const draw of drawn) draw(); }, true);

  // --- tables ---
  const cellValue = (cell) => {
    if (!cell) return "";
    const raw = cell.dataset.v, lines = [...cell.querySelectorAll("li")];
    if (lines.length) return lines.map((item) => item.textContent.replace(/\s+/g, " ").trim()).join("; ");
    return raw === undefined ? cell.textContent.replace(/\s+/g, " ").trim() : raw === "" ? null : Number.isNaN(+raw) ? raw : +raw;
  };
  const tableRows = (table) => {
    const names = [...table.tHead.rows[0].cells].map((cell) => cell.dataset.name || cell.textContent.replace(/\s+/g, " ").trim());
    return [...table.tBodies[0].rows].map((row) => Object.fromEntries(names.map((name, i) => [name, cellValue(row.cells[i])])));
  };
  const compare = (a, b) => {
    const [x, y] = [a, b].map((value) => (typeof value === "string" && /^[−+-]?[\d.,]+\s*%?$/.test(value)
      ? +value.replace("−", "-").replace(/[,%\s+]/g, "") : value));
    if (x === null || x === "" || x === "–") return 1;
    if (y === null || y === "" || y === "–") return -1;
    return typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true });
  };
  let tables = 0;
  for (const table of document.querySelectorAll("table")) {
    if (!table.tHead || table.closest(".play")) continue;
    const name = table.dataset.name || table.closest("section")?.id || "table";
    for (const head of table.tHead.rows[0].cells) {
      const button = html("button", { type: "button", class: "sort" });
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const rows = [...table.tBodies[0].rows];
        const order = (row) => cellValue(row.cells[head.cellIndex]);
        rows.sort((a, b) => (up ? 1 : -1) * compare(order(a), order(b)));
        table.tBodies[0].append(...rows);
      });
    }
    table.closest(".scroll")?.after(downloads(`${name}-${++tables}`, () => tableRows(table)));
  }
  const results = document.getElementById("results");
  for (const place of document.querySelectorAll("[data-results]"))
    place.append(html("button", { type: "button", onclick: () => save("results.json", "application/json", results.textContent) }, "Download all results (JSON)"));

  // --- filters of the test items ---
  for (const form of document.querySelectorAll("form.filters")) {
    form.hidden = false;
    const list = [...document.querySelectorAll(".item")];
    const shown = form.querySelector("output");
    const apply = () => {
      const choice = Object.fromEntries(new FormData(form));
      let count = 0;
      for (const item of list) {
        const outcomes = JSON.parse(item.dataset.outcomes).filter(([arm, seed]) =>
          (!choice.arm || String(arm) === choice.arm) && (!choice.seed || String(seed) === choice.seed));
        const right = outcomes.some(([, , passed]) => passed), wrong = outcomes.some(([, , passed]) => !passed);
        const wanted = { "": true, right, wrong, differ: right && wrong }[choice.outcome || ""];
        item.hidden = !(wanted && (outcomes.length || (!choice.arm && !choice.seed))
          && (!choice.level || item.dataset.level === choice.level) && (!choice.band || item.dataset.band === choice.band));
        for (const row of item.querySelectorAll("[data-arm]"))
          row.hidden = Boolean((choice.arm && row.dataset.arm !== choice.arm) || (choice.seed && row.dataset.seed !== choice.seed));
        count += !item.hidden;
      }
      shown.value = `${count} of ${list.length}`;
    };
    form.addEventListener("input", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
    apply();
  }
})();
