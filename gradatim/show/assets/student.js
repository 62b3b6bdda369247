/* Students in the browser: the forward pass of GPT-2, Llama and Qwen3 with a KV cache, and their tokenizers.

   A file of gradatim.show.weights is a little-endian header length (uint32), a JSON header and the tensors. A tensor of
   int8 is one scale a row, then the rows; it is multiplied out when the file is opened, as float16 is converted. All
   arithmetic is in float32. */
"use strict";

const student = (() => {
  /** The student of a file: {config, tokens, weights}. */
  function open(buffer) {
    const length = new DataView(buffer).getUint32(0, true);
    const { config, tokens, tensors } = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
    const weights = {};
    for (const [name, { rows, columns, bits, offset }] of Object.entries(tensors)) {
      const start = 4 + length + offset;
      weights[name] = bits === 32 ? new Float32Array(buffer, start, rows * columns) : bits === 16 ? halves(buffer, start, rows * columns)
        : dequantised(buffer, start, rows, columns);
    }
    return { config, weights, tokens, codec: codec(config.tokenizer, tokens, config.eos, config.special) };
  }

  /** Numbers of float16 (1 sign, 5 exponent and 10 fraction bits) as float32. */
  function halves(buffer, start, count) {
    return Float32Array.from(new Uint16Array(buffer, start, count), (half) => {
      const exponent = (half >> 10) & 31, fraction = half & 1023, sign = half >> 15 ? -1 : 1;
      if (exponent === 31) return fraction ? NaN : sign * Infinity;
      return sign * (exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction);
    });
  }

  function dequantised(buffer, start, rows, columns) {
    const scales = new Float32Array(buffer, start, rows), stored = new Int8Array(buffer, start + 4 * rows, rows * columns);
    const matrix = new Float32Array(rows * columns);
    for (let row = 0, cell = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++, cell++) matrix[cell] = stored[cell] * scales[row];
    }
    return matrix;
  }

  /* ---- tokenizers ---- */

  const ATOM = /\p{Nd}|(?<![\p{L}\p{M}\p{N}\p{Pc}])[\p{L}\p{M}\p{Nl}\p{No}\p{Pc}](?![\p{L}\p{M}\p{N}\p{Pc}])/gu;

  /** Encoder of a tokenizer: "character", or "word_level" (digits, one-letter words and phrases, longest match). */
  function codec(kind, tokens, eos, special) {
    const ids = new Map(tokens.map((token, id) => [token, id]));
    for (const id of special) ids.delete(tokens[id]);
    const longest = Math.max(...[...ids.keys()].map((token) => token.length));

    function piece(text, result) {
      for (let start = 0; start < text.length;) {
        let end = Math.min(text.length, start + (kind === "character" ? [...text.slice(start, start + 2)][0].length : longest));
        while (end > start && !ids.has(text.slice(start, end))) end -= 1;
        if (end === start) throw new RangeError(`the student has no token for ${JSON.stringify([...text.slice(start)][0])}`);
        result.push(ids.get(text.slice(start, end)));
        start = end;
      }
    }

    function encode(text) {
      const result = [];
      if (kind === "character") piece(text, result);
      else {
        let last = 0;
        for (const match of text.matchAll(ATOM)) {
          piece(text.slice(last, match.index), result);
          piece(match[0], result);
          last = match.index + match[0].length;
        }
        piece(text.slice(last), result);
      }
      return result;
    }

    return { encode, text: (id) => (id === eos ? "" : tokens[id]), eos };
  }

  /* ---- arithmetic ---- */

  function product(matrix, vector, bias, rows) {
    const columns = vector.length, result = new Float32Array(rows);
    for (let row = 0, at = 0; row < rows; row++, at += columns) {
      let a = 0, b = 0, c = 0, d = 0, column = 0;
      for (; column + 3 < columns; column += 4) {
        a += matrix[at + column] * vector[column];
        b += matrix[at + column + 1] * vector[column + 1];
        c += matrix[at + column + 2] * vector[column + 2];
        d += matrix[at + column + 3] * vector[column + 3];
      }
      for (; column < columns; column++) a += matrix[at + column] * vector[column];
      result[row] = a + b + c + d + (bias ? bias[row] : 0);
    }
    return result;
  }

  function normalised(vector, weight, bias, config, start = 0, size = vector.length) {
    let mean = 0, square = 0;
    if (config.norm === "layer") {
      for (let i = 0; i < size; i++) mean += vector[start + i];
      mean /= size;
    }
    for (let i = 0; i < size; i++) square += (vector[start + i] - mean) ** 2;
    const scale = 1 / Math.sqrt(square / size + config.eps), result = new Float32Array(size);
    for (let i = 0; i < size; i++) {
      result[i] = (vector[start + i] - mean) * scale * (weight ? weight[i] : 1) + (bias ? bias[i] : 0);
    }
    return result;
  }

  /** The error function by its power series near 0, and by the continued fraction of its complement beyond. */
  function erf(x) {
    const z = Math.abs(x);
    if (z > 6) return Math.sign(x);
    if (z < 2.5) {
      let term = z, sum = z;
      for (let n = 1; Math.abs(term) > 1e-17; n++) { term *= (-z * z) / n; sum += term / (2 * n + 1); }
      return (Math.sign(x) * sum * 2) / Math.sqrt(Math.PI);
    }
    let fraction = 0;
    for (let n = 60; n > 0; n--) fraction = n / 2 / (z + fraction);
    return Math.sign(x) * (1 - Math.exp(-z * z) / (Math.sqrt(Math.PI) * (z + fraction)));
  }

  const ACTIVATIONS = {
    silu: (x) => x / (1 + Math.exp(-x)),
    gelu: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
    gelu_new: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  };

  /** Rotate one head in place, in halves: dimension i with i + size / 2. */
  function rotate(vector, start, size, position, theta) {
    const half = size / 2;
    for (let i = 0; i < half; i++) {
      const angle = position * theta ** (-2 * i / size), cos = Math.cos(angle), sin = Math.sin(angle);
      const a = vector[start + i], b = vector[start + i + half];
      vector[start + i] = a * cos - b * sin;
      vector[start + i + half] = b * cos + a * sin;
    }
  }

  /** An empty KV cache. */
  function begin(model) {
    const { layers, kvHeads, headSize, context } = model.config;
    const buffers = () => Array.from({ length: layers }, () => new Float32Array(context * kvHeads * headSize));
    return { position: 0, keys: buffers(), values: buffers() };
  }

  /** Attention of one token: the mean of the values, weighted; `record` receives the weights of each head. */
  function attend(model, cache, layer, query, record) {
    const { heads, kvHeads, headSize, windows } = model.config;
    const width = kvHeads * headSize, last = cache.position, keys = cache.keys[layer], values = cache.values[layer];
    const first = windows[layer] ? Math.max(0, last - windows[layer] + 1) : 0;
    const result = new Float32Array(heads * headSize);
    for (let head = 0; head < heads; head++) {
      const at = head * headSize, shared = Math.floor(head / (heads / kvHeads)) * headSize;
      const weights = new Float32Array(last - first + 1);
      let largest = -Infinity, total = 0;
      for (let column = first; column <= last; column++) {
        let score = 0;
        for (let i = 0, cell = column * width + shared; i < headSize; i++, cell++) score += query[at + i] * keys[cell];
        score /= Math.sqrt(headSize);
        weights[column - first] = score;
        if (score > largest) largest = score;
      }
      for (let i = 0; i < weights.length; i++) total += weights[i] = Math.exp(weights[i] - largest);
      for (let column = first; column <= last; column++) {
        const weight = (weights[column - first] /= total);
        for (let i = 0, cell = column * width + shared; i < headSize; i++, cell++) result[at + i] += weight * values[cell];
      }
      if (record) record.push({ layer, head, first, weights });
    }
    return result;
  }

  /** Read one token. `wanted`: {logits, states, attention}, each true or absent. */
  function read(model, cache, token, wanted = { logits: true }) {
    const { config, weights } = model;
    const { width, layers, heads, kvHeads, headSize, vocabulary, mlp } = config;
    if (cache.position >= config.context) throw new RangeError(`the student reads at most ${config.context} tokens`);
    let state = weights.embedding.slice(token * width, (token + 1) * width);
    if (weights.position) for (let i = 0; i < width; i++) state[i] += weights.position[cache.position * width + i];
    const result = { states: [state.slice()], attention: [] };
    const act = ACTIVATIONS[config.activation];
    for (let layer = 0; layer < layers; layer++) {
      const of = (name) => weights[`${layer}.${name}`];
      const input = normalised(state, of("norm1"), of("norm1.bias"), config);
      let query = product(of("query"), input, of("query.bias"), heads * headSize);
      let key = product(of("key"), input, of("key.bias"), kvHeads * headSize);
      const value = product(of("value"), input, of("value.bias"), kvHeads * headSize);
      if (of("query.norm")) {
        for (const [vector, weight] of [[query, of("query.norm")], [key, of("key.norm")]]) {
          for (let at = 0; at < vector.length; at += headSize) vector.set(normalised(vector, weight, null, config, at, headSize), at);
        }
      }
      if (config.theta) {
        for (const vector of [query, key]) {
          for (let at = 0; at < vector.length; at += headSize) rotate(vector, at, headSize, cache.position, config.theta);
        }
      }
      cache.keys[layer].set(key, cache.position * kvHeads * headSize);
      cache.values[layer].set(value, cache.position * kvHeads * headSize);
      const mixed = attend(model, cache, layer, query, wanted.attention ? result.attention : null);
      const attended = product(of("output"), mixed, of("output.bias"), width);
      for (let i = 0; i < width; i++) state[i] += attended[i];
      const middle = normalised(state, of("norm2"), of("norm2.bias"), config);
      const up = product(of("up"), middle, of("up.bias"), mlp);
      const gate = of("gate") ? product(of("gate"), middle, of("gate.bias"), mlp) : null;
      for (let i = 0; i < mlp; i++) up[i] = gate ? act(gate[i]) * up[i] : act(up[i]);
      const down = product(of("down"), up, of("down.bias"), width);
      for (let i = 0; i < width; i++) state[i] += down[i];
      if (wanted.states && layer + 1 < layers) result.states.push(state.slice());
    }
    cache.position += 1;
    if (wanted.logits || wanted.states) {
      state = normalised(state, weights.norm, weights["norm.bias"], config);
      result.states.push(state);
      if (wanted.logits) result.logits = product(weights.head || weights.embedding, state, weights["head.bias"], vocabulary);
    }
    return result;
  }

  function probabilities(logits) {
    let largest = -Infinity, total = 0;
    for (const logit of logits) if (logit > largest) largest = logit;
    const shares = Float64Array.from(logits, (logit) => Math.exp(logit - largest));
    for (const share of shares) total += share;
    return shares.map((share) => share / total);
  }

  /** The `count` likeliest tokens as [id, probability], the likeliest first. */
  function likeliest(shares, count) {
    return [...shares.keys()].sort((a, b) => shares[b] - shares[a] || a - b).slice(0, count).map((id) => [id, shares[id]]);
  }

  /** Greedy completion of a prompt, token by token: {id, text, probability, top, attention}; the last one is the end token. */
  function* complete(model, prompt, options) { yield* extend(model, model.codec.encode(prompt), options); }

  /** Greedy continuation of the tokens `ids`; see complete. */
  function* extend(model, ids, { limit = 64, attention = false } = {}) {
    const cache = begin(model);
    if (ids.length >= model.config.context) {
      throw new RangeError(`the program has ${ids.length} tokens; the student reads at most ${model.config.context}`);
    }
    if (!ids.length) throw new RangeError("the program is empty");
    let result;
    for (const [index, id] of ids.entries()) result = read(model, cache, id, { logits: index + 1 === ids.length, attention: attention && index + 1 === ids.length });
    for (let count = 0; count < limit; count++) {
      const shares = probabilities(result.logits), top = likeliest(shares, 5), id = top[0][0];
      yield { id, text: model.codec.text(id), probability: top[0][1], end: id === model.codec.eos, shares, attention: result.attention,
        top: top.map(([other, probability]) => ({ id: other, text: model.codec.text(other), end: other === model.codec.eos, probability })) };
      if (id === model.codec.eos || cache.position >= model.config.context) return;
      result = read(model, cache, id, { logits: true, attention });
    }
  }

  /** The states of every token of a text: for each, the outputs of all layers, the last one normalised. */
  function states(model, text) {
    const cache = begin(model);
    return model.codec.encode(text).map((id) => ({ id, text: model.codec.text(id), states: read(model, cache, id, { states: true }).states }));
  }

  /** The values that the heads of trace supervision read at each token of a text: [{end, operands, results}], each of the
      two as [value, probability]; null for a student without heads. The probability of a
      value is the product of those of its parts. */
  function beliefs(model, text) {
    const probe = model.config.probe;
    if (!probe) return null;
    const rows = probe.parts.reduce((sum, classes) => sum + classes.length, 0);
    let end = 0;
    return states(model, text).map((token) => {
      end += token.text.length;
      const read = (name) => {
        const scores = product(model.weights[`probe.${name}`], normalised(token.states[probe[name]], null, null, { norm: "rms", eps: 1e-6 }), null, rows);
        let start = 0;
        const parts = probe.parts.map((classes) => {
          const [[best, share]] = likeliest(probabilities(scores.slice(start, start += classes.length)), 1);
          return { text: classes[best], share };
        });
        return valueOf(parts);
      };
      return { end, operands: read("operands"), results: read("results") };
    });
  }

  /** [value, probability] of the parts of a value: the value itself, or its kind, three digits from the ones on, and its fraction. */
  function valueOf([kind, ...others]) {
    if (!others.length || !/int|float/.test(kind.text)) return [kind.text, kind.share];
    const isFloat = kind.text.endsWith("float"), used = isFloat ? others : others.slice(0, 3);
    const whole = Number(others.slice(0, 3).map((part) => part.text).reverse().join(""));
    const text = `${kind.text.startsWith("-") ? "-" : ""}${whole}${isFloat ? others[3].text.slice(1) : ""}`;
    return [text, used.reduce((share, part) => share * part.share, kind.share)];
  }

  return { open, begin, read, complete, extend, states, beliefs, likeliest, probabilities };
})();
