/**
 * JSON whose numbers keep all their digits. `JSON.parse` rounds what a double cannot hold: a UInt64 beyond 2^53, a
 * Decimal of more than 15 digits. Pure; imports nothing. Imports: nothing.
 */

/** A number that no double holds, as it was written. In arithmetic it is the nearest double. */
export class ExactNumber {
  constructor(readonly text: string) {}

  /** The digits as they stood in the JSON text. */
  toString(): string {
    return this.text;
  }

  /** The nearest number: digits beyond 2^53 are rounded. */
  valueOf(): number {
    return Number(this.text);
  }

  /** `JSON.stringify` cannot write it, and must not round it. */
  toJSON(): never {
    throw new TypeError(`JSON.stringify would round ${this.text}: use stringifyExact`);
  }
}

/** Doubles hold every decimal number of so many digits. */
const SAFE_DIGITS = 15;
/**
 * No sixteen digits in a row, nor around a point: every number in it is a double. A longer string is looked at for
 * nothing.
 */
const long = /[\d.]{16}|\d[eE]/;

/**
 * As `JSON.parse`, but of numbers that a double does not hold integers become a `bigint`, others an `ExactNumber`.
 * `null` (a tombstone) stays `null`.
 *
 * @throws SyntaxError as `JSON.parse` does.
 */
export function parseExact<T = Record<string, unknown>>(value: Uint8Array | string | null): T | null {
  if (value === null) return null;
  const text =
    typeof value === 'string' ? value : Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString();
  const parsed: unknown = JSON.parse(text);
  return (long.test(text) ? new Parser(text).value() : parsed) as T;
}

/** As `JSON.stringify`, but bigints and `ExactNumber`s are written with all their digits. */
export function stringifyExact(value: unknown): string | undefined {
  try {
    return JSON.stringify(value);
  } catch (thrown) {
    // A bigint, an ExactNumber, or what cannot be written at all: then this throws likewise.
    if (!(thrown instanceof TypeError)) throw thrown;
    return written(value, '', []);
  }
}

/** Of text that was parsed already: it is JSON. */
class Parser {
  #at = 0;

  constructor(private readonly text: string) {}

  value(): unknown {
    this.#skipSpace();
    switch (this.text[this.#at]) {
      case '{':
        return this.#object();
      case '[':
        return this.#array();
      case '"':
        return this.#string();
      default:
        return this.#scalar();
    }
  }

  #object(): object {
    const made: Record<string, unknown> = {};
    for (this.#at += 1; !this.#ends('}');) {
      this.#skipSpace();
      const key = this.#string();
      this.#skipSpace();
      this.#at += 1;
      // As JSON.parse: a field of any name is a field, also __proto__.
      Object.defineProperty(made, key, { value: this.value(), writable: true, enumerable: true, configurable: true });
    }
    return made;
  }

  #array(): unknown[] {
    const made: unknown[] = [];
    for (this.#at += 1; !this.#ends(']');) made.push(this.value());
    return made;
  }

  /** Goes behind the bracket that ends it, or a comma. */
  #ends(bracket: string): boolean {
    this.#skipSpace();
    const isEnd = this.text[this.#at] === bracket;
    if (isEnd || this.text[this.#at] === ',') this.#at += 1;
    return isEnd;
  }

  #string(): string {
    const from = this.#at;
    for (this.#at += 1; this.text[this.#at] !== '"'; this.#at += 1) if (this.text[this.#at] === '\\') this.#at += 1;
    this.#at += 1;
    return JSON.parse(this.text.slice(from, this.#at)) as string;
  }

  #scalar(): unknown {
    const word = /[^\s,\]}]+/y;
    word.lastIndex = this.#at;
    const text = word.exec(this.text)?.[0] ?? '';
    this.#at += text.length;
    return /^[-\d]/.test(text) ? numberOf(text) : (JSON.parse(text) as unknown);
  }

  #skipSpace(): void {
    while (' \t\n\r'.includes(this.text[this.#at] ?? '-')) this.#at += 1;
  }
}

function numberOf(text: string): number | bigint | ExactNumber {
  if (/^-?\d+$/.test(text)) return Number.isSafeInteger(Number(text)) ? Number(text) : BigInt(text);
  const digits = (/^[^eE]*/.exec(text)?.[0] ?? '').replace(/[-.]/g, '').replace(/^0+|0+$/g, '').length;
  const double = Number(text);
  const isHeld = digits <= SAFE_DIGITS && Number.isFinite(double) && (digits === 0 || Math.abs(double) >= 1e-290);
  return isHeld ? double : new ExactNumber(text);
}

function written(given: unknown, key: string, above: readonly unknown[]): string | undefined {
  if (given instanceof ExactNumber) return given.text;
  if (typeof given === 'bigint') return given.toString();
  const value = hasToJson(given) ? given.toJSON(key) : given;
  if (typeof value !== 'object' || value === null)
    return typeof value === 'bigint' ? value.toString() : JSON.stringify(value);
  if (above.includes(value)) throw new TypeError('Converting circular structure to JSON');
  const path = [...above, value];
  if (Array.isArray(value)) return `[${value.map((one, at) => written(one, String(at), path) ?? 'null').join(',')}]`;
  const fields = Object.entries(value).flatMap(([name, one]) => {
    const text = written(one, name, path);
    return text === undefined ? [] : [`${JSON.stringify(name)}:${text}`];
  });
  return `{${fields.join(',')}}`;
}

function hasToJson(value: unknown): value is { toJSON(key: string): unknown } {
  return typeof value === 'object' && value !== null && 'toJSON' in value && typeof value.toJSON === 'function';
}
