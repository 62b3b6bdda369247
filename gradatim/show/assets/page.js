/* The page: the map of the test programs, their table, and the playground. */
"use strict";

(() => {
  const $ = (id) => document.getElementById(id);
  let data = JSON.parse($("show-data").textContent);

  function make(name, properties = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(properties)) {
      if (key === "class") element.className = value;
      else if (key in element) element[key] = value;
      else element.setAttribute(key, value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  function percent(share) {
    if (share > 0 && share < 0.0005) return "< 0.1 %";
    if (share < 1 && share > 0.9995) return "> 99.9 %";
    return `${(100 * share).toFixed(share === 1 || share === 0 ? 0 : 1)} %`;
  }
  const runOf = (key) => data.runs.find((run) => run.key === key);
  const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
  const stageName = (run, stage) => (run.stages.some((other) => other.cycle !== stage.cycle) ? `cycle ${stage.cycle + 1}, ` : "") + stage.name;
  const OUTPUT = "# output\n";
  const programOf = (prompt) => (prompt.endsWith(OUTPUT) ? prompt.slice(0, -OUTPUT.length) : prompt);

  function fill(select, options, chosen) {
    const before = chosen === undefined ? select.value : chosen;
    select.replaceChildren(...options.map(([value, label]) => make("option", { value, textContent: label })));
    if (options.some(([value]) => value === before)) select.value = before;
  }

  /* ---- students ---- */

  const students = new Map();

  function decoded(text) {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text).buffer;
    const binary = atob(text), bytes = new Uint8Array(binary.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
    return bytes.buffer;
  }

  /** The opened student of a stage; an Error says why there is none. */
  function opened(stage) {
    if (!students.has(stage.key)) students.set(stage.key, fetched(stage).catch((error) => { students.delete(stage.key); throw error; }));
    return students.get(stage.key);
  }

  async function fetched(stage) {
    const element = [...document.querySelectorAll("script[data-student]")].find((item) => item.dataset.student === stage.key);
    if (element) return student.open(decoded(element.textContent));
    if (!data.served) throw new Error("This page does not hold the student of this stage; gradatim show RUN does.");
    const reply = await fetch(`students?key=${encodeURIComponent(stage.key)}`);
    if (!reply.ok) throw new Error(await reply.text());
    return student.open(await reply.arrayBuffer());
  }

  /** The answer of a stage's student as a list of tokens; `live` is false when another question has replaced this one. */
  async function answer(stage, prompt, limit, live) {
    if (stage.computed === "nowhere") throw new Error(stage.reason);
    if (stage.computed === "server") {
      if (!data.served) throw new Error(`The page cannot compute this student (${stage.reason}); gradatim show RUN can.`);
      const reply = await fetch("ask", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ key: stage.key, prompt, limit }) });
      if (!reply.ok) throw new Error(await reply.text());
      return (await reply.json()).tokens;
    }
    const model = await opened(stage), list = [];
    let pause = performance.now();
    for (const token of student.complete(model, prompt, { limit, attention: true })) {
      list.push(token);
      if (performance.now() - pause > 40) {
        await new Promise((resolve) => setTimeout(resolve));
        pause = performance.now();
        if (!live()) return null;
      }
    }
    list.input = model.codec.encode(prompt).map(model.codec.text);
    return list;
  }

  /* ---- map ---- */

  const map = { columns: [], programs: [], order: [], selected: null, places: [], arms: false, page: 0, sort: null };
  const COLOURS = ["learnt", "kept", "forgotten", "unlearnt", "missing"];

  function testRuns() { return data.runs.filter((run) => run.test !== null && run.stages.some((stage) => stage.verdicts)); }

  function mapOptions() {
    const runs = testRuns();
    const options = runs.map((run) => [run.key, `stages of ${run.title}`]);
    for (const seed of [...new Set(runs.map((run) => run.seed))]) {
      const members = runs.filter((run) => run.seed === seed && run.test === runs.find((item) => item.seed === seed).test);
      if (members.length > 1) options.push([`seed ${seed}`, `arms after their last stage, seed ${seed}`]);
    }
    return options;
  }

  function chooseMap() {
    const value = $("map-run").value, runs = testRuns();
    map.arms = !runOf(value);
    const first = map.arms ? runs.find((run) => `seed ${run.seed}` === value) : runOf(value);
    const last = (run) => run.stages.filter((stage) => stage.verdicts).at(-1);
    map.columns = map.arms
      ? runs.filter((run) => run.seed === first.seed && run.test === first.test).map((run) => ({ label: run.title, verdicts: last(run).verdicts }))
      : first.stages.filter((stage) => stage.verdicts).map((stage) => ({ label: stageName(first, stage), verdicts: stage.verdicts }));
    map.programs = data.tests[first.test].map(([prompt, expected, level, difficulty], index) => ({ index, prompt, expected, level: level || "", difficulty }));
    map.metric = first.metric;
    map.selected = null;
    map.page = 0;
    $("program").hidden = true;
    order();
  }

  const history = (program) => map.columns.map((column) => column.verdicts[program.index]).join("");
  const byLevel = (a, b) => a.level.localeCompare(b.level) || (a.difficulty ?? Infinity) - (b.difficulty ?? Infinity) || a.index - b.index;
  const ORDERS = {
    level: byLevel,
    difficulty: (a, b) => (a.difficulty ?? Infinity) - (b.difficulty ?? Infinity) || byLevel(a, b),
    history: (a, b) => history(b).localeCompare(history(a)) || byLevel(a, b),
  };

  function order() {
    map.order = [...map.programs].sort(ORDERS[$("map-order").value]);
    draw();
    list();
  }

  /** 0 learnt, 1 kept, 2 forgotten, 3 not learnt, 4 not evaluated: against the column before, or the first arm. */
  function status(program, column) {
    const now = map.columns[column].verdicts[program.index];
    if (now !== "0" && now !== "1") return 4;
    const other = map.arms ? 0 : column - 1;
    const before = map.arms && column === 0 ? now : other >= 0 ? map.columns[other].verdicts[program.index] : "0";
    return now === "1" ? (before === "1" ? 1 : 0) : before === "1" ? 2 : 3;
  }

  function layout(width) {
    const grouped = $("map-order").value === "level";
    const columns = Math.max(8, Math.min(Math.floor(width / 4), Math.ceil(Math.sqrt(map.order.length * 1.7))));
    const cell = width / columns, places = [];
    let x = 0, y = 0, level = null;
    const labels = [];
    for (const program of map.order) {
      if (grouped && program.level !== level) {
        if (x > 0) y += cell;
        if (level !== null) y += 5;
        level = program.level;
        labels.push([level, y + 11]);
        y += 15;
        x = 0;
      }
      places.push([x * cell, y]);
      x += 1;
      if (x === columns) { x = 0; y += cell; }
    }
    return { cell, columns, places, labels, height: y + (x > 0 ? cell : 0) };
  }

  function draw() {
    const holder = $("waffles");
    const words = map.arms ? ["only this arm right", "both right", "only the first arm right", "both wrong"] : ["learnt", "kept", "forgotten", "not learnt"];
    holder.replaceChildren(...map.columns.map((column, index) => {
      const counts = [0, 0, 0, 0, 0];
      for (const program of map.programs) counts[status(program, index)] += 1;
      const evaluated = map.programs.length - counts[4];
      const text = `${percent((counts[0] + counts[1]) / Math.max(evaluated, 1))} right`;
      const canvas = make("canvas", { role: "img", "aria-label": `${column.label}: ${text}; ${words.map((word, i) => `${word} ${counts[i]}`).join(", ")}` });
      canvas.dataset.column = index;
      return make("figure", {}, make("figcaption", {}, make("strong", { textContent: column.label }), make("span", { class: "faint", textContent: text })), canvas);
    }));
    const keys = document.querySelectorAll(".map-legend .map-key");
    ["learnt", "kept", "forgotten", "unlearnt"].forEach((_, i) => { keys[i].nextSibling.textContent = `${map.arms ? words[i] : ["learnt in this stage", "kept", "forgotten", "not learnt"][i]} `; });
    paint();
  }

  function paint() {
    const styles = getComputedStyle(document.documentElement);
    const colours = COLOURS.map((name) => styles.getPropertyValue(`--${name}`).trim());
    for (const canvas of document.querySelectorAll("#waffles canvas")) {
      const width = canvas.parentElement.clientWidth;
      if (!width) return;
      const plan = map.plan = layout(width), scale = window.devicePixelRatio || 1;
      canvas.width = Math.round(width * scale);
      canvas.height = Math.max(1, Math.round(plan.height * scale));
      canvas.style.height = `${plan.height}px`;
      const pen = canvas.getContext("2d");
      pen.scale(scale, scale);
      const gap = plan.cell > 5 ? 1 : 0.5;
      map.order.forEach((program, i) => {
        const [x, y] = plan.places[i];
        pen.fillStyle = colours[status(program, Number(canvas.dataset.column))];
        pen.fillRect(x, y, plan.cell - gap, plan.cell - gap);
      });
      pen.fillStyle = styles.getPropertyValue("--muted").trim();
      pen.font = `11px ${styles.getPropertyValue("--sans")}`;
      for (const [level, y] of plan.labels) if (level) pen.fillText(`level ${level}`, 0, y);
      if (map.selected !== null) {
        const [x, y] = plan.places[map.selected];
        pen.strokeStyle = styles.getPropertyValue("--ink").trim();
        pen.lineWidth = 2;
        pen.strokeRect(x - 1, y - 1, plan.cell + 1, plan.cell + 1);
      }
    }
  }

  function describe(program) {
    const parts = [`Program ${program.index + 1}`];
    if (program.level) parts.push(`level ${program.level}`);
    if (program.difficulty !== null && map.metric !== "column") parts.push(`${map.metric} ${Number(program.difficulty.toFixed(3))}`);
    return parts.join(", ");
  }

  function select(position) {
    map.selected = Math.max(0, Math.min(map.order.length - 1, position));
    const program = map.order[map.selected];
    const words = map.arms ? ["right, the first arm wrong", "right", "wrong, the first arm right", "wrong", "not evaluated"] : ["right: learnt in this stage", "right", "wrong: forgotten", "wrong", "not evaluated"];
    const verdicts = map.columns.map((column, index) => {
      const kind = status(program, index);
      return make("li", {}, `${column.label}: `, make("span", { class: kind < 2 ? "right" : kind < 4 ? "wrong" : "faint", textContent: words[kind] }));
    });
    const open = make("button", { type: "button", textContent: "Open in the playground", onclick: () => toPlayground(program) });
    $("program").replaceChildren(make("strong", { textContent: describe(program) }), make("pre", { textContent: program.prompt + program.expected }), make("ul", {}, ...verdicts), open);
    $("program").hidden = false;
    paint();
  }

  function hit(event) {
    const box = event.target.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top, size = map.plan.cell;
    return map.plan.places.findIndex(([left, top]) => x >= left && x < left + size && y >= top && y < top + size);
  }

  function toPlayground(program) {
    $("code").value = programOf(program.prompt);
    $("playground").scrollIntoView();
    $("code").focus({ preventScroll: true });
    play();
  }

  /* ---- table of programs ---- */

  const PAGE = 25;
  const FILTERS = {
    all: () => true,
    right: (text) => text.at(-1) === "1",
    wrong: (text) => text.at(-1) === "0",
    forgotten: (text) => text.at(-1) === "0" && text.slice(0, -1).includes("1"),
    never: (text) => !text.includes("1"),
  };

  function list() {
    const filter = FILTERS[$("list-filter").value];
    let rows = map.order.map((program, position) => ({ program, position, text: history(program) })).filter((row) => filter(row.text));
    const keys = [(row) => row.program.prompt, (row) => row.program.level, (row) => row.program.difficulty ?? Infinity, ...map.columns.map((_, i) => (row) => row.text[i])];
    if (map.sort) {
      const { column, down } = map.sort, key = keys[column] || keys[0];
      rows = rows.map((row) => [key(row), row]).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0) * (down ? -1 : 1)).map(([, row]) => row);
    }
    const pages = Math.max(1, Math.ceil(rows.length / PAGE));
    map.page = Math.max(0, Math.min(map.page, pages - 1));
    const header = ["Program", "Level", map.metric === "column" ? "Difficulty" : map.metric, ...map.columns.map((column) => column.label)].map((name, column) => {
      const cell = make("th", { scope: "col" }, make("button", { type: "button", class: "sort", textContent: name, onclick: () => sortBy(column) }));
      cell.setAttribute("aria-sort", map.sort?.column === column ? (map.sort.down ? "descending" : "ascending") : "none");
      return cell;
    });
    const table = document.querySelector(".programs");
    table.tHead.replaceChildren(make("tr", {}, ...header));
    table.tBodies[0].replaceChildren(...rows.slice(map.page * PAGE, (map.page + 1) * PAGE).map(({ program, position, text }) =>
      make("tr", {},
        make("td", { class: "first" }, make("code", { textContent: programOf(program.prompt).trimEnd().replaceAll("\n", " ⏎ ").replaceAll("\t", " "), title: programOf(program.prompt) }), make("button", { type: "button", textContent: "Show", "aria-label": `Show program ${program.index + 1}`, onclick: () => { select(position); $("program").scrollIntoView({ block: "nearest" }); } })),
        make("td", { textContent: program.level || "–" }),
        make("td", { textContent: program.difficulty === null ? "–" : String(Number(program.difficulty.toFixed(3))) }),
        ...[...text].map((mark) => make("td", { class: mark === "1" ? "right" : mark === "0" ? "wrong" : "faint", textContent: mark === "1" ? "right" : mark === "0" ? "wrong" : "–" })))));
    $("list-count").textContent = `${plural(rows.length, "program")}, page ${map.page + 1} of ${pages}`;
    $("list-back").disabled = map.page === 0;
    $("list-on").disabled = map.page >= pages - 1;
  }

  function sortBy(column) {
    map.sort = { column, down: map.sort?.column === column && !map.sort.down };
    map.page = 0;
    list();
  }

  /* ---- playground ---- */

  let question = 0;

  const playable = () => data.runs.filter((run) => run.stages.length && !run.policy);
  const programs = (run) => (run.test === null ? [] : data.tests[run.test]);

  /** Truth of the program in the editor: {prompt, expected, note, level, error}. */
  function truth(run) {
    const text = $("code").value.replace(/\r\n?/g, "\n");
    const body = text.split(/^# output\n?/m)[0];
    const known = programs(run).find(([prompt]) => prompt === body + OUTPUT || prompt === `${body}\n${OUTPUT}` || prompt === text);
    const result = tinypy.run(body);
    if (result.output === undefined) {
      const outside = /^this is not/.test(result.error);
      if (known && outside) return { prompt: known[0], expected: known[1], level: known[2], known, output: known[1], foreign: true };
      return { error: `Line ${result.line}: ${result.error}.`, outside };
    }
    const layout = tinypy.format(body);
    const expected = result.output.split("\n").slice(0, -1).map((line) => `# ${line}\n`).join("");
    return { prompt: known ? known[0] : layout + OUTPUT, expected, output: result.output, level: known ? known[2] : tinypy.level(body), known, body, layout: known || layout === body || layout === `${body}\n` ? null : layout };
  }

  function facts(run, found) {
    const parts = [];
    if (found.level) parts.push(`Level ${found.level}`);
    const measure = tinypy.metrics[run.metric];
    if (found.known && found.known[3] !== null && run.metric !== "column") parts.push(`${run.metric} ${Number(found.known[3].toFixed(3))}`);
    else if (measure && found.body !== undefined) parts.push(`${run.metric} ${Number(measure(found.body).toFixed(3))}`);
    if (found.body !== undefined && run.metric !== "om") parts.push(`om ${Number(tinypy.metrics.om(found.body).toFixed(3))}`);
    parts.push(found.known ? "a program of the test set" : "not a program of the test set");
    if (found.layout) parts.push("read by the student in the layout of its training data (tabs, blanks around operators)");
    return `${parts.join("; ")}.`;
  }

  async function play() {
    const mine = ++question, live = () => mine === question;
    $("token").hidden = true;
    $("beliefs").hidden = true;
    const run = runOf($("play-run").value);
    if (!run) return;
    const empty = !$("code").value.trim();
    const found = empty ? { error: "" } : truth(run);
    $("prints").textContent = found.error !== undefined ? found.error : found.foreign ? found.expected : found.output || "(nothing)";
    $("prints").classList.toggle("wrong", Boolean(found.error));
    if (found.error !== undefined) {
      $("facts").textContent = empty ? "" : found.outside ? "The page runs TinyPy only and does not guess." : "A program that fails has no output to compare with.";
      $("answers").replaceChildren();
      document.body.dataset.answered = String(mine);
      return;
    }
    $("facts").textContent = facts(run, found);
    const runs = [run, runOf($("play-other").value)].filter(Boolean);
    const holders = runs.map((item) => item.stages.map((stage) => ({ run: item, stage, element: make("div", { class: "answer" }, make("p", { class: "faint", textContent: "…" })) })));
    $("answers").replaceChildren(...runs.map((item, i) => make("div", {}, make("h3", { textContent: item.title }), ...holders[i].map((holder) => holder.element))));
    for (const holder of holders.flat()) {
      const heading = make("h4", {}, make("span", { textContent: `after ${stageName(holder.run, holder.stage)}` }), share(holder.stage, found.level));
      try {
        const tokens = await answer(holder.stage, found.prompt, limitOf(holder.run, found), live);
        if (!live()) return;
        holder.element.replaceChildren(heading, ...spoken(tokens, found, holder.run.scratchpad));
      } catch (error) {
        if (!live()) return;
        holder.element.replaceChildren(heading, make("p", { class: "faint", textContent: error.message }));
      }
      await new Promise((resolve) => setTimeout(resolve));
      if (!live()) return;
    }
    await believed(run, found, live);
    if (live()) document.body.dataset.answered = String(mine);
  }

  /** The table of true values and those that the heads of trace supervision predict, a column per stage. */
  async function believed(run, found, live) {
    const text = programOf(found.prompt), values = found.foreign ? [] : tinypy.values(text), columns = [];
    for (const stage of values.length ? run.stages : []) {
      const model = stage.computed === "page" ? await opened(stage).catch(() => null) : null;
      let tokens = null;
      try {
        tokens = model && student.beliefs(model, text);
      } catch (error) {
        if (!(error instanceof RangeError)) throw error; // longer than the context: said in the answers
      }
      if (tokens) columns.push({ stage, tokens });
      await new Promise((resolve) => setTimeout(resolve));
      if (!live()) return;
    }
    $("beliefs").hidden = !columns.length;
    const table = document.querySelector(".beliefs");
    table.tHead.replaceChildren(make("tr", {}, ...["Line", "Expression", "True value", ...columns.map(({ stage }) => `after ${stageName(run, stage)}`)].map((name) => make("th", { scope: "col", textContent: name }))));
    table.tBodies[0].replaceChildren(...values.map((item) => make("tr", {}, make("td", { textContent: String(item.line) }), make("td", {}, make("code", { textContent: item.text })), make("td", { textContent: item.value }),
      ...columns.map(({ tokens }) => {
        const [value, share] = tokens.find((token) => token.end > item.position)[item.kind];
        return make("td", { class: sameValue(value, item.value) ? "right" : "wrong" }, `${value} `, make("span", { class: "faint", textContent: percent(share) }));
      }))));
  }

  /** Whether a value that the heads predict is the true one; they round floats to five decimals. */
  const sameValue = (predicted, value) => predicted === value
    || (predicted.includes(".") && /[.e]/.test(value) && predicted.startsWith("-") === value.startsWith("-") && Number(predicted).toFixed(5) === Number(value).toFixed(5));

  const SCRATCHPAD_TOKENS = 1000;
  const limitOf = (run, found) => found.expected.length + (run.scratchpad ? SCRATCHPAD_TOKENS : 16);

  /** The answer without the steps of a scratchpad, as programs.printed_lines. */
  const printedLines = (text) => text.split(/(?<=\n)/).filter((line) => !(line.startsWith("# ") && line.includes(" = "))).join("");

  function share(stage, level) {
    const counts = stage.levels[level];
    if (!counts || !counts[1]) return null;
    return make("span", { class: "faint", textContent: `${percent(counts[0] / counts[1])} of the test programs of level ${level} right` });
  }

  /** Tokens of an answer with their probabilities, and the verdict. The steps of a scratchpad are not compared. */
  function spoken(tokens, found, scratchpad) {
    let text = "", wrong = -1, rest = found.expected;
    tokens.forEach((token, i) => {
      if (scratchpad) {
        text += token.text;
        const printed = printedLines(token.end ? text : text.slice(0, text.lastIndexOf("\n") + 1));
        if (wrong < 0 && !(token.end ? printed === found.expected : found.expected.startsWith(printed))) wrong = i;
        return;
      }
      if (wrong < 0 && !(token.end ? rest === "" : rest.startsWith(token.text))) wrong = i;
      if (wrong < 0) rest = rest.slice(token.text.length);
      text += token.text;
    });
    const ended = tokens.at(-1)?.end === true, written = scratchpad ? printedLines(text) : text;
    const right = wrong < 0 && ended && written === found.expected;
    const items = tokens.map((token, i) => {
      const name = token.end ? "end" : token.text.replaceAll("\n", "↵").replaceAll("\t", "→").replaceAll(" ", "·");
      const kind = i === wrong ? "token first-wrong" : wrong >= 0 && i > wrong ? "token after" : "token";
      const button = make("button", { type: "button", class: kind, "aria-pressed": "false", onclick: () => detail(button, tokens, i) }, name, make("small", { textContent: percent(token.probability) }));
      if (i === wrong) button.setAttribute("aria-label", `${name}, ${percent(token.probability)}, first wrong token`);
      return make("li", {}, button);
    });
    const shown = text.endsWith("\n") ? text.slice(0, -1) : text;
    const verdict = right ? "Right." : wrong < 0 ? "Right so far, without an end." : `Wrong from token ${wrong + 1} on${scratchpad ? "" : rightToken(tokens[wrong], rest)}.`;
    return [make("ol", { class: "tokens", "aria-label": `Answer: ${shown || "nothing"}` }, ...items), make("p", { class: right ? "right" : "wrong", textContent: verdict })];
  }

  /** The probability of the right token in place of the first wrong one, where it is among the likeliest. */
  function rightToken(token, rest) {
    const other = token.top.find((item) => (item.end ? rest === "" : item.text !== "" && rest.startsWith(item.text)));
    return other ? `; the right one had ${percent(other.probability)}` : "";
  }

  function detail(button, tokens, index) {
    for (const item of document.querySelectorAll(".token[aria-pressed='true']")) item.setAttribute("aria-pressed", "false");
    button.setAttribute("aria-pressed", "true");
    const token = tokens[index];
    const visible = (item) => (item.end ? "end of the answer" : JSON.stringify(item.text));
    const rows = token.top.map((item) => {
      const bar = make("span", { class: "meter" }, make("i"));
      bar.firstChild.style.width = `${100 * item.probability}%`;
      return make("tr", {}, make("th", { scope: "row" }, make("code", { textContent: visible(item) })), make("td", { class: "n", textContent: percent(item.probability) }), make("td", {}, bar));
    });
    const children = [
      make("h3", { textContent: `Token ${index + 1}: the likeliest ${rows.length}` }),
      make("table", { class: "likeliest" }, make("thead", {}, make("tr", {}, make("th", { scope: "col", textContent: "token" }), make("th", { scope: "col", class: "n", textContent: "probability" }), make("td"))), make("tbody", {}, ...rows)),
    ];
    if (tokens.input && token.attention?.length) children.push(...attention(token, tokens, index));
    $("token").replaceChildren(...children);
    $("token").hidden = false;
  }

  /** Attention at the token that was read last: the mean over the heads of a layer, as shading of the text. */
  function attention(token, tokens, index) {
    const pieces = [...tokens.input, ...tokens.slice(0, index).map((item) => item.text)];
    const layers = [...new Set(token.attention.map((item) => item.layer))];
    const choice = make("select", {}, ...layers.map((layer) => make("option", { value: String(layer), textContent: `layer ${layer + 1}` })));
    const text = make("pre", { class: "attention" });
    function shade() {
      const heads = token.attention.filter((item) => item.layer === Number(choice.value));
      const mean = pieces.map((_, column) => heads.reduce((sum, { first, weights }) => sum + (column >= first ? weights[column - first] || 0 : 0), 0) / heads.length);
      const largest = Math.max(...mean);
      text.replaceChildren(...pieces.map((piece, column) => {
        const span = make("span", { textContent: piece, title: percent(mean[column]) });
        span.style.backgroundColor = `color-mix(in srgb, var(--accent) ${Math.round((70 * mean[column]) / (largest || 1))}%, transparent)`;
        return span;
      }));
    }
    choice.value = String(layers.at(-1));
    choice.onchange = shade;
    shade();
    return [make("p", {}, make("label", {}, "Attention to the tokens before it, mean over the heads of ", choice)), text];
  }

  function example(wanted) {
    const run = runOf($("play-run").value), level = $("play-level").value;
    const verdicts = run.stages.filter((stage) => stage.verdicts).at(-1)?.verdicts;
    const all = programs(run).map((item, index) => ({ item, index })).filter(({ item }) => level === "" || item[2] === level);
    const fitting = wanted === "wrong" ? all.filter(({ index }) => verdicts && verdicts[index] === "0") : all;
    if (!fitting.length) {
      $("facts").textContent = wanted === "wrong" ? (verdicts ? "There is no such program." : "The run has no verdict per program.") : "There is no such program in the test set.";
      return;
    }
    $("code").value = programOf(fitting[Math.floor(Math.random() * fitting.length)].item[0]);
    play();
  }

  function setUpPlayground() {
    const runs = playable();
    $("play").hidden = !runs.length;
    if (!runs.length) return;
    const largest = Math.max(...runs.map((run) => run.stages.at(-1).result?.[0] ?? -1));
    const names = runs.map((run) => [run.key, run.title]);
    const best = runs.find((run) => (run.stages.at(-1).result?.[0] ?? -1) === largest);
    fill($("play-run"), names, $("play-run").value || best.key);
    fill($("play-other"), [["", "none"], ...names]);
    $("play-other").parentElement.hidden = runs.length < 2;
    levels();
  }

  function levels() {
    const run = runOf($("play-run").value);
    const known = [...new Set(programs(run).map((item) => item[2]).filter(Boolean))].sort();
    fill($("play-level"), [["", "any"], ...known.map((level) => [level, level])]);
    for (const id of ["play-random", "play-wrong"]) $(id).hidden = !programs(run).length;
  }

  /* ---- live ---- */

  function say() {
    if (!$("status")) return; // a report states by itself which runs are not finished
    const running = data.runs.filter((run) => !run.complete).length;
    $("status").textContent = running ? `${plural(data.runs.length, "run")}, ${running} in progress${data.served ? "; the page follows them" : " when the page was written"}.` : "";
  }

  let version = null, questions = null;

  async function follow() {
    if (!data.served || data.complete) return;
    try {
      const state = await (await fetch("state")).json();
      if (version !== null && state.version !== version) {
        const fresh = await (await fetch("content")).json();
        const folds = [...document.querySelectorAll("#run details")];
        const opened = new Set(folds.filter((item) => item.open).map((item) => item.dataset.arm));
        $("overview").innerHTML = fresh.overview;
        if (folds.length) for (const item of document.querySelectorAll("#run details")) item.open = opened.has(item.dataset.arm);
        if (fresh.questions !== questions) $("tree").innerHTML = questions = fresh.questions; // opened entries stay open
        data = { ...fresh.data, served: true };
        setUpMap();
        setUpPlayground();
        say();
      }
      version = state.version;
    } catch {
      $("status").textContent = "The server of this page does not answer: it was stopped, or is busy.";
    }
    setTimeout(follow, 4000);
  }

  function setUpMap() {
    const options = mapOptions(), chosenBefore = $("map-run").value;
    const show = options.length > 0;
    for (const element of [document.querySelector("#map .controls"), document.querySelector("#map .map-legend"), $("waffles"), $("list")]) element.hidden = !show;
    $("map-empty").hidden = show;
    if (!show) {
      $("map-empty").textContent = data.runs.some((run) => run.stages.length) ? "No evaluation of these runs has a verdict per program, so there is no map; the rest of the page is complete." : "No stage is finished yet.";
      return;
    }
    fill($("map-run"), options, chosenBefore || ($("play-run").value && runOf($("play-run").value) ? $("play-run").value : options[0][0]));
    chooseMap();
  }

  $("map-run").onchange = chooseMap;
  $("map-order").onchange = order;
  $("waffles").onclick = (event) => { if (event.target.tagName === "CANVAS" && hit(event) >= 0) select(hit(event)); };
  $("waffles").onkeydown = (event) => {
    const move = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: map.plan?.columns, ArrowUp: -map.plan?.columns }[event.key];
    if (move) { event.preventDefault(); select((map.selected ?? -1) + move); }
    else if (event.key === "Enter" && map.selected !== null) { event.preventDefault(); toPlayground(map.order[map.selected]); }
  };
  $("list-filter").onchange = () => { map.page = 0; list(); };
  $("list-back").onclick = () => { map.page -= 1; list(); };
  $("list-on").onclick = () => { map.page += 1; list(); };
  let pause = null;
  $("code").oninput = () => { question += 1; clearTimeout(pause); pause = setTimeout(play, 250); };
  $("play-run").onchange = () => { levels(); play(); };
  $("play-other").onchange = play;
  $("play-random").onclick = () => example("any");
  $("play-wrong").onclick = () => example("wrong");
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
  let resized = null;
  window.addEventListener("resize", () => { clearTimeout(resized); resized = setTimeout(paint, 100); });

  setUpPlayground();
  setUpMap();
  say();
  if (!$("play").hidden) {
    $("code").value = "a = 4\nb = 7\nprint(a + b)\n";
    play();
  }
  follow();
})();
