/* TinyPy in the browser: parser, interpreter, level and difficulty of a program.

   tinypy.run(text) prints what CPython prints, as gradatim.programs.run_program does. Integers are BigInt, floats are
   numbers, truth values are booleans. A program outside TinyPy or one that raises gives {error, line} and no output. */
"use strict";

const tinypy = (() => {
  const MAX_BITS = 4096n;
  const MAX_DIGITS = 4300;
  const MAX_STEPS = 10000;
  const ALLOWED = "assignments, print, if, for over range, while, arithmetic, comparisons, and, or, not";
  const KEYWORDS = new Set(("False None True and as assert async await break class continue def del elif else except " +
    "finally for from global if import in is lambda nonlocal not or pass raise return try while with yield").split(" "));
  const COMPARISONS = new Set(["<", "<=", ">", ">=", "==", "!="]);

  class Fault extends Error {
    constructor(message, line) { super(message); this.line = line; }
  }

  const outside = (line, given) => new Fault(`this is not TinyPy: ${given.slice(0, 60)}; allowed: ${ALLOWED}`, line);

  /* ---- tokens ---- */

  const TOKEN = new RegExp([
    "(?<number>0[xX](?:_?[0-9a-fA-F])+|0[oO](?:_?[0-7])+|0[bB](?:_?[01])+" +
      "|(?:[0-9](?:_?[0-9])*\\.?(?:[0-9](?:_?[0-9])*)?|\\.[0-9](?:_?[0-9])*)(?:[eE][-+]?[0-9](?:_?[0-9])*)?)",
    "(?<name>[\\p{L}_][\\p{L}\\p{N}\\p{M}_]*)",
    "(?<sign>\\*\\*=?|//=?|<<=?|>>=?|<=|>=|==|!=|->|:=|[-+*/%@&|^]=|[-+*/%@&|^~<>()\\[\\]{}=,:;.])",
  ].join("|"), "uy");

  /** Tokens {kind, text, line, start, end}; kinds: number, name, sign, newline, indent, dedent, end. */
  function tokens(text) {
    const source = text.replace(/\r\n?/g, "\n");
    const result = [], indents = [{ columns: 0, tabs: 0 }];
    let position = 0, line = 1, depth = 0, lineStart = true;
    const push = (kind, piece = "") =>
      result.push({ kind, text: piece, line, start: position, end: position + piece.length });
    while (position < source.length) {
      if (lineStart && depth === 0) {
        let columns = 0, tabs = 0;
        for (; " \t\f".includes(source[position] || "x"); position++) {
          if (source[position] === "\t") { columns = (Math.floor(columns / 8) + 1) * 8; tabs += 1; }
          else if (source[position] === "\f") { columns = tabs = 0; }
          else { columns += 1; tabs += 1; }
        }
        if (position >= source.length) break;
        if (source[position] === "\n") { position++; line++; continue; }
        if (source[position] === "#") { while (position < source.length && source[position] !== "\n") position++; continue; }
        const top = () => indents[indents.length - 1];
        if (columns === top().columns && tabs !== top().tabs) throw new Fault("inconsistent tabs and spaces", line);
        if (columns > top().columns) {
          if (tabs <= top().tabs) throw new Fault("inconsistent tabs and spaces", line);
          indents.push({ columns, tabs });
          push("indent");
        }
        while (columns < top().columns) { indents.pop(); push("dedent"); }
        if (columns !== top().columns) throw new Fault("the indentation matches no outer level", line);
        if (tabs !== top().tabs) throw new Fault("inconsistent tabs and spaces", line);
        lineStart = false;
      }
      const character = source[position];
      if (" \t\f".includes(character)) { position++; continue; }
      if (character === "#") { while (position < source.length && source[position] !== "\n") position++; continue; }
      if (character === "\\" && source[position + 1] === "\n") { position += 2; line++; continue; }
      if (character === "\n") {
        if (depth === 0) { push("newline"); lineStart = true; }
        position++; line++;
        continue;
      }
      TOKEN.lastIndex = position;
      const match = TOKEN.exec(source);
      if (!match) throw outside(line, source.split("\n")[line - 1].trim());
      const kind = match.groups.number ? "number" : match.groups.name ? "name" : "sign";
      const piece = match[0];
      if (kind === "number" && /^[\p{L}\p{N}_]/u.test(source.slice(position + piece.length))) {
        const word = /^[\p{L}\p{N}_]+/u.exec(source.slice(position + piece.length))[0];
        if (!["and", "else", "for", "if", "in", "is", "or", "not"].includes(word)) throw new Fault("invalid number", line);
      }
      push(kind, piece);
      position += piece.length;
      if ("([{".includes(piece)) depth += 1;
      if (")]}".includes(piece)) depth -= 1;
      if (depth < 0) throw new Fault(`unmatched '${piece}'`, line);
    }
    if (depth > 0) throw new Fault("a bracket was never closed", line);
    if (!lineStart) push("newline");
    while (indents.pop().columns > 0) push("dedent");
    push("end");
    return { list: result, source };
  }

  function number(text, line) {
    const digits = text.replaceAll("_", "");
    if (/^0[xXoObB]/.test(digits)) return BigInt(digits.toLowerCase());
    if (/[.eE]/.test(digits)) return Number(digits);
    if (/^0+[1-9]/.test(digits)) throw new Fault("leading zeros are not permitted", line);
    if (digits.length > MAX_DIGITS) throw new Fault(`a number has more than ${MAX_DIGITS} digits`, line);
    return BigInt(digits);
  }

  /* ---- parser: nodes {kind, line, start, end, …}; start and end are positions in the text ---- */

  function parse(text) {
    const { list, source } = tokens(text);
    let index = 0;
    const peek = () => list[index];
    const next = () => list[index++];
    const is = (piece) => peek().text === piece && peek().kind !== "number";
    const lineText = (line) => source.split("\n")[line - 1] || "";
    const refuse = (token) => outside(token.line, lineText(token.line).trim() || "the end of the program");
    const take = (piece) => { if (!is(piece)) throw refuse(peek()); return next(); };
    const node = (kind, first, fields) => ({ kind, line: first.line, start: first.start, end: list[index - 1].end, ...fields });

    function name() {
      const token = peek();
      if (token.kind !== "name" || KEYWORDS.has(token.text)) throw refuse(token);
      return next();
    }

    function atom() {
      const token = peek();
      if (token.kind === "number") { next(); return node("constant", token, { value: number(token.text, token.line) }); }
      if (is("True") || is("False")) { next(); return node("constant", token, { value: token.text === "True" }); }
      if (is("(")) {
        next();
        const inner = disjunction();
        take(")");
        inner.brackets = (inner.brackets || 0) + 1;
        return inner;
      }
      const variable = name();
      return node("name", variable, { name: variable.text });
    }

    function factor() {
      const token = peek();
      if (is("-") || is("+")) {
        next();
        const operand = factor();
        return node("unary", token, { op: token.text, terms: [operand] });
      }
      return atom();
    }

    function binary(operators, below) {
      return () => {
        const first = peek();
        let left = below();
        while (operators.some(is)) {
          const op = next().text;
          const right = below();
          left = node("binary", first, { op, terms: [left, right] });
        }
        return left;
      };
    }

    const product = binary(["*", "/", "//", "%"], factor);
    const sum = binary(["+", "-"], product);

    function comparison() {
      const first = peek();
      const terms = [sum()], ops = [];
      while (COMPARISONS.has(peek().text) && peek().kind === "sign") { ops.push(next().text); terms.push(sum()); }
      return ops.length ? node("compare", first, { ops, terms }) : terms[0];
    }

    function negation() {
      const token = peek();
      if (!is("not")) return comparison();
      next();
      const operand = negation();
      return node("unary", token, { op: "not", terms: [operand] });
    }

    function joined(word, below) {
      return () => {
        const first = peek();
        const terms = [below()];
        while (is(word)) { next(); terms.push(below()); }
        return terms.length > 1 ? node("bool", first, { op: word, terms }) : terms[0];
      };
    }

    const conjunction = joined("and", negation);
    const disjunction = joined("or", conjunction);

    function list_() {
      const items = [];
      take("(");
      while (!is(")")) {
        items.push(disjunction());
        if (!is(")")) take(",");
      }
      take(")");
      return items;
    }

    function suite() {
      take(":");
      if (peek().kind !== "newline") return simpleLine();
      next();
      if (peek().kind !== "indent") throw new Fault("an indented block is missing", peek().line);
      next();
      const body = [];
      while (peek().kind !== "dedent") body.push(...statement());
      next();
      return body;
    }

    function simple() {
      const token = peek();
      if (is("pass")) { next(); return node("pass", token, {}); }
      if (token.kind !== "name" || KEYWORDS.has(token.text)) throw refuse(token);
      if (token.text === "print" && list[index + 1].text === "(") {
        next();
        return node("print", token, { terms: list_() });
      }
      const target = name();
      take("=");
      const value = disjunction();
      return node("assign", token, { name: target.text, value });
    }

    function simpleLine() {
      const body = [simple()];
      while (is(";")) { next(); if (peek().kind !== "newline") body.push(simple()); }
      if (peek().kind !== "newline") throw refuse(peek());
      next();
      return body;
    }

    function conditional() {
      const token = next();
      const test = disjunction();
      const colon = peek().start;
      const body = suite();
      let otherwise = [], elseStart = null;
      if (is("elif")) otherwise = [conditional()];
      else if (is("else")) { elseStart = next().start; otherwise = suite(); }
      return node("if", token, { test, body, otherwise, colon, elseStart });
    }

    function loopElse() {
      if (!is("else")) return [];
      next();
      return suite();
    }

    function statement() {
      const token = peek();
      if (token.kind === "indent") throw new Fault("unexpected indent", token.line);
      if (is("if")) return [conditional()];
      if (is("while")) {
        next();
        const test = disjunction();
        const body = suite();
        return [node("while", token, { test, body, otherwise: loopElse() })];
      }
      if (is("for")) {
        next();
        const target = name();
        take("in");
        take("range");
        const range = list_();
        const body = suite();
        return [node("for", token, { name: target.text, range, body, otherwise: loopElse() })];
      }
      return simpleLine();
    }

    const body = [];
    while (peek().kind !== "end") body.push(...statement());
    return body;
  }

  /* ---- arithmetic of Python ---- */

  const plain = (value) => (typeof value === "boolean" ? (value ? 1n : 0n) : value);
  const bits = (value) => (value === 0n ? 0 : (value < 0n ? -value : value).toString(2).length);
  const raise = (kind, message) => { throw new Fault(`the program raises ${kind}: ${message}`, null); };

  function float(value) {
    if (typeof value === "number") return value;
    const converted = Number(value);
    if (!Number.isFinite(converted)) raise("OverflowError", "int too large to convert to float");
    return converted;
  }

  /** a / b of two integers, correctly rounded: once, to nearest, ties to even. */
  function quotient(a, b) {
    if (b === 0n) raise("ZeroDivisionError", "division by zero");
    const limit = 9007199254740992n;
    if (a >= -limit && a <= limit && b >= -limit && b <= limit) return Number(a) / Number(b);
    const negative = (a < 0n) !== (b < 0n);
    const top = a < 0n ? -a : a, bottom = b < 0n ? -b : b;
    if (top === 0n) return negative ? -0 : 0;
    let shift = 66 - (bits(top) - bits(bottom));
    if (shift > 1140) shift = 1140;
    const scaled = shift >= 0 ? top << BigInt(shift) : top;
    const divisor = shift >= 0 ? bottom : bottom << BigInt(-shift);
    let digits = scaled / divisor;
    const sticky = scaled % divisor !== 0n;
    // The value is digits · 2^-shift; it keeps 53 bits, fewer where it is subnormal (its last bit is 2^-1074).
    const drop = Math.max(bits(digits) - 53, shift - 1074, 0);
    const unit = 1n << BigInt(drop), half = unit >> 1n, rest = digits & (unit - 1n);
    digits >>= BigInt(drop);
    if (drop && (rest > half || (rest === half && (sticky || digits & 1n)))) digits += 1n;
    const exponent = drop - shift;
    if (bits(digits) + exponent > 1024) raise("OverflowError", "integer division result too large for a float");
    const value = exponent > 900 ? Number(digits << BigInt(exponent)) : Number(digits) * scale(exponent);
    return negative ? -value : value;
  }

  /** 2^exponent, exact for -1074 … 1023. */
  const scale = (exponent) => (exponent < -1022 ? 2 ** -1022 * 2 ** (exponent + 1022) : 2 ** exponent);

  function divmod(a, b, kind) {
    if (typeof a === "bigint" && typeof b === "bigint") {
      if (b === 0n) raise("ZeroDivisionError", "integer division or modulo by zero");
      let quotient = a / b, rest = a % b;
      if (rest !== 0n && (rest < 0n) !== (b < 0n)) { quotient -= 1n; rest += b; }
      return kind === "//" ? quotient : rest;
    }
    const x = float(a), y = float(b);
    if (y === 0) raise("ZeroDivisionError", kind === "//" ? "float floor division by zero" : "float modulo");
    let rest = x % y, whole = (x - rest) / y;
    if (rest !== 0 && !Number.isNaN(rest)) {
      if ((y < 0) !== (rest < 0)) { rest += y; whole -= 1; }
    } else if (rest === 0) rest = y < 0 ? -0 : 0;
    if (kind === "%") return rest;
    if (whole === 0 || Number.isNaN(whole)) return Number.isNaN(whole) ? whole : (x / y < 0 || Object.is(x / y, -0) ? -0 : 0);
    const floored = Math.floor(whole);
    return whole - floored > 0.5 ? floored + 1 : floored;
  }

  function binary(op, first, second) {
    const a = plain(first), b = plain(second);
    if (op === "//" || op === "%") return divmod(a, b, op);
    if (typeof a === "bigint" && typeof b === "bigint") {
      if (op === "+") return a + b;
      if (op === "-") return a - b;
      if (op === "*") return a * b;
      return quotient(a, b);
    }
    const x = float(a), y = float(b);
    if (op === "+") return x + y;
    if (op === "-") return x - y;
    if (op === "*") return x * y;
    if (y === 0) raise("ZeroDivisionError", "float division by zero");
    return x / y;
  }

  function compare(op, first, second) {
    const a = plain(first), b = plain(second); // BigInt and Number compare exactly
    if (op === "<") return a < b;
    if (op === "<=") return a <= b;
    if (op === ">") return a > b;
    if (op === ">=") return a >= b;
    return op === "==" ? a == b : a != b; // eslint-disable-line eqeqeq
  }

  const truth = (value) => (typeof value === "bigint" ? value !== 0n : typeof value === "number" ? value !== 0 : value);
  const truthy = (value) => Number.isNaN(value) || truth(value);

  /** The text of a value as Python's str gives it. */
  function show(value) {
    if (typeof value === "boolean") return value ? "True" : "False";
    if (typeof value === "bigint") return value.toString();
    if (Number.isNaN(value)) return "nan";
    if (!Number.isFinite(value)) return value < 0 ? "-inf" : "inf";
    const sign = value < 0 || Object.is(value, -0) ? "-" : "";
    const [mantissa, power] = Math.abs(value).toExponential().split("e");
    const digits = mantissa.replace(".", ""), exponent = Number(power);
    if (exponent < -4 || exponent >= 16) {
      const tail = digits.length > 1 ? `.${digits.slice(1)}` : "";
      return `${sign}${digits[0]}${tail}e${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
    }
    if (exponent < 0) return `${sign}0.${"0".repeat(-exponent - 1)}${digits}`;
    const whole = digits.slice(0, exponent + 1).padEnd(exponent + 1, "0");
    return `${sign}${whole}.${digits.slice(exponent + 1) || "0"}`;
  }

  /* ---- interpreter ---- */

  /** Run a program: {output} or {error, line}. observe(node, value) receives each expression and condition. */
  function run(text, { maxSteps = MAX_STEPS, observe = null } = {}) {
    const names = new Map(), printed = [];
    let remaining = maxSteps, line = 1;

    function step() {
      remaining -= 1;
      if (remaining < 0) throw new Fault(`the program does not end within ${maxSteps} steps`, line);
    }

    function value(node) {
      const result = computed(node);
      if (observe) observe(node, result);
      return result;
    }

    function computed(node) {
      switch (node.kind) {
        case "constant": return node.value;
        case "name":
          if (!names.has(node.name)) raise("NameError", `name '${node.name}' is not defined`);
          return names.get(node.name);
        case "binary": {
          const left = value(node.terms[0]);
          const result = binary(node.op, left, value(node.terms[1]));
          if (typeof result === "bigint" && bits(result) > MAX_BITS) {
            throw new Fault(`a number grows beyond ${MAX_BITS} bits`, line);
          }
          return result;
        }
        case "unary": {
          const operand = value(node.terms[0]);
          if (node.op === "not") return !truthy(operand);
          return node.op === "-" ? -plain(operand) : plain(operand);
        }
        case "bool": {
          let result;
          for (const term of node.terms) {
            result = value(term);
            if (truthy(result) === (node.op === "or")) break;
          }
          return result;
        }
        default: {
          let left = value(node.terms[0]);
          for (let i = 0; i < node.ops.length; i++) {
            const right = value(node.terms[i + 1]);
            if (!compare(node.ops[i], left, right)) return false;
            left = right;
          }
          return true;
        }
      }
    }

    function range(terms) {
      const values = terms.map((term) => plain(value(term)));
      if (values.length < 1 || values.length > 3) raise("TypeError", `range expected 1 to 3 arguments, got ${values.length}`);
      if (values.some((item) => typeof item !== "bigint")) raise("TypeError", "'float' object cannot be interpreted as an integer");
      const [start, stop, move] = values.length === 1 ? [0n, values[0], 1n] : [values[0], values[1], values.length > 2 ? values[2] : 1n];
      if (move === 0n) raise("ValueError", "range() arg 3 must not be zero");
      return { start, stop, move };
    }

    function body(statements) {
      for (const statement of statements) {
        line = statement.line;
        step();
        execute(statement);
      }
    }

    function execute(statement) {
      switch (statement.kind) {
        case "assign": names.set(statement.name, value(statement.value)); break;
        case "print": printed.push(`${statement.terms.map((term) => show(value(term))).join(" ")}\n`); break;
        case "if": {
          const holds = truthy(value(statement.test));
          if (observe) observe(statement, holds);
          body(holds ? statement.body : statement.otherwise);
          break;
        }
        case "while":
          while (truthy(value(statement.test))) { step(); body(statement.body); }
          body(statement.otherwise);
          break;
        case "for": {
          const { start, stop, move } = range(statement.range);
          for (let item = start; move > 0n ? item < stop : item > stop; item += move) {
            step();
            names.set(statement.name, item);
            body(statement.body);
          }
          body(statement.otherwise);
          break;
        }
        default: break;
      }
    }

    try {
      body(parse(text));
      return { output: printed.join("") };
    } catch (fault) {
      if (fault instanceof Fault) return { error: fault.message, line: fault.line === null ? line : fault.line };
      if (fault instanceof RangeError) return { error: "the program is nested too deeply", line };
      throw fault;
    }
  }

  /* ---- level and difficulty ---- */

  function* nodesOf(item) {
    yield item;
    for (const part of ["test", "value"]) if (item[part] && item[part].kind) yield* nodesOf(item[part]);
    for (const part of ["terms", "range", "body", "otherwise"]) for (const inner of item[part] || []) yield* nodesOf(inner);
  }

  const all = (body) => body.flatMap((statement) => [...nodesOf(statement)]);

  /** The simplest published level of TinyPy that has every construct of the program. */
  function level(text) {
    const nodes = all(parse(text));
    const has = (kind) => nodes.some((item) => item.kind === kind);
    const nested = nodes.some((item) => item.kind === "binary" && item.terms.some((term) => term.kind === "binary"));
    const logical = nodes.some((item) => item.kind === "bool" || (item.kind === "unary" && item.op === "not"));
    if (has("while")) return "4.1";
    if (has("for")) return has("binary") ? "3.2" : "3.1";
    if (has("if")) return nested || logical ? "2.2" : "2.1";
    return nested ? "1.2" : "1.1";
  }

  /** McCabe's complexity and Halstead's difficulty as radon counts them. */
  function radon(text) {
    const operators = new Set(), operands = new Set();
    let complexity = 1, used = 0;
    for (const item of all(parse(text))) {
      if (item.kind === "if") complexity += 1;
      if (item.kind === "for" || item.kind === "while") complexity += 1 + (item.otherwise.length ? 1 : 0);
      if (item.kind === "bool") complexity += item.terms.length - 1;
      if (!["binary", "unary", "bool", "compare"].includes(item.kind)) continue;
      for (const op of item.ops || [item.op]) operators.add(item.kind === "unary" ? `unary ${op}` : op);
      used += item.terms.length;
      for (const term of item.terms) {
        operands.add(term.kind === "name" ? `name ${term.name}` : term.kind === "constant" ? Number(term.value) : term);
      }
    }
    return { complexity, halstead: operands.size ? (operators.size * used) / (2 * operands.size) : 0 };
  }

  /** Halstead's difficulty over tokens: (n1 / 2)(N2 / n2); keywords and signs are operators. */
  function tokenDifficulty(text) {
    parse(text);
    const operators = new Set(), operands = [];
    for (const item of tokens(text).list) {
      const word = item.kind === "name" && !["True", "False", "None"].includes(item.text) && KEYWORDS.has(item.text);
      if (word || (item.kind === "sign" && !")]}".includes(item.text))) operators.add(item.text);
      else if (item.kind === "name" || item.kind === "number") operands.push(item.text);
    }
    return operands.length ? ((operators.size / 2) * operands.length) / new Set(operands).size : 0;
  }

  const METRICS = {
    om: (text) => { const { complexity, halstead } = radon(text); return (complexity + halstead) / 2; },
    cyclomatic: (text) => radon(text).complexity,
    halstead: tokenDifficulty,
  };

  /** The values that a program computes, by character of its text: [{position, kind, value, text, line}] in the order of
      evaluation, each position once, with its first value. Kinds: operands (a name that is read), results. */
  function values(text) {
    const found = new Map();
    const put = (position, kind, node, value, shown) => {
      if (!found.has(`${kind} ${position}`)) found.set(`${kind} ${position}`, { position, kind, value: show(value), text: shown, line: node.line });
    };
    run(text, { observe: (node, value) => {
      if (node.kind === "name") put(node.start, "operands", node, value, node.name);
      else if (node.kind === "if") {
        put(node.colon, "results", node, value, "branch taken");
        if (node.elseStart !== null) put(node.elseStart, "results", node, !value, "else taken");
      } else if (node.kind !== "constant") put(node.end - 1, "results", node, value, text.slice(node.start, node.end));
    } });
    return [...found.values()];
  }

  /* ---- layout ---- */

  /** The program in the layout of generated TinyPy: tabs, a blank before the colon and around operators. */
  function format(text) {
    const source = tokens(text).source;
    function expression(item) {
      let written;
      switch (item.kind) {
        case "constant": written = source.slice(item.start, item.end).replace(/^\(+|\)+$/g, "").trim(); break;
        case "name": written = item.name; break;
        case "unary": written = `${item.op}${item.op === "not" ? " " : ""}${expression(item.terms[0])}`; break;
        case "compare": written = item.terms.map((term, i) => (i ? `${item.ops[i - 1]} ` : "") + expression(term)).join(" "); break;
        default: written = item.terms.map(expression).join(` ${item.op} `);
      }
      return "(".repeat(item.brackets || 0) + written + ")".repeat(item.brackets || 0);
    }
    const list = (terms) => terms.map(expression).join(", ");
    function block(body, depth) {
      return body.flatMap((item) => statement(item, depth));
    }
    function statement(item, depth, word = item.kind) {
      const tabs = "\t".repeat(depth);
      const otherwise = () => (item.otherwise.length ? [`${tabs}else :`, ...block(item.otherwise, depth + 1)] : []);
      switch (item.kind) {
        case "assign": return [`${tabs}${item.name} = ${expression(item.value)}`];
        case "print": return [`${tabs}print(${list(item.terms)})`];
        case "pass": return [`${tabs}pass`];
        case "for":
          return [`${tabs}for ${item.name} in range(${list(item.range)}) :`, ...block(item.body, depth + 1), ...otherwise()];
        default: {
          const lines = [`${tabs}${word} ${expression(item.test)} :`, ...block(item.body, depth + 1)];
          const chained = item.kind === "if" && item.elseStart === null && item.otherwise.length;
          return [...lines, ...(chained ? statement(item.otherwise[0], depth, "elif") : otherwise())];
        }
      }
    }
    return block(parse(text), 0).map((line) => `${line}\n`).join("");
  }

  return { run, parse, level, metrics: METRICS, format, values, show, all };
})();
