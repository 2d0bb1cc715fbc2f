// Makes JSON objects as text, also in the rare shapes that the grammar allows.
import type { Random } from '../random.js';

/** Fields that provenance columns take, in every spelling that a server without case or with escapes decoded may read as one. */
const provenanceNames = ['_topic', '_partition', '_offset', '_timestamp', '_key', '_headers'] as const;
const plainNames = [
  'id',
  'n',
  'a',
  's',
  'v',
  '',
  'a.b',
  '_',
  '_offsets',
  '_offse',
  'offset',
  '__proto__',
  'ключ',
  'é',
  '\u2028',
  'a\u0000b',
] as const;
const spaces = ['', '', '', '', ' ', '\n', '\t', '\r\n', '  \n ', '\u0020\u0009'] as const;
const numbers = [
  '0',
  '-0',
  '1',
  '-1',
  '1.5',
  '1e5',
  '1E+5',
  '1e-5',
  '0.0',
  '-0.0e0',
  '18446744073709551615',
  '18446744073709551616',
  '9007199254740993',
  '1e400',
  '-1e400',
  '1e-400',
  '123456789012345678901234567890123456789012345678901234567890',
  '0.1234567890123456789012345678901234567890',
  '4e0',
] as const;
const pieces = [
  'a',
  'x',
  'plain text',
  '{',
  '}',
  '[',
  ']',
  ',',
  ':',
  '},{',
  '"}'.slice(1),
  "'",
  '/',
  '\\"',
  '\\\\',
  '\\/',
  '\\b',
  '\\f',
  '\\n',
  '\\r',
  '\\t',
  '\\u0000',
  '\\u0022',
  '\\u005c',
  '\\u005C',
  '\\uD83D\\uDE00',
  '\\ud800',
  '\\udc00x',
  '\\uFFFF',
  'é',
  '日本',
  '😀',
  '\u007f',
  '\u2028',
  '(at row 3)',
  '_offset',
] as const;

export class Grammar {
  readonly #random: Random;
  /** Values that may still be made: bounds the size. */
  #left: number;

  constructor(random: Random, mostValues: number) {
    this.#random = random;
    this.#left = mostValues;
  }

  object(depth: number): string {
    const fields = Array.from(
      { length: this.#random.small(5) },
      () => `${this.#space()}${this.#name()}${this.#space()}:${this.value(depth - 1)}`,
    );
    return `{${fields.length === 0 ? this.#space() : fields.join(',')}}`;
  }

  value(depth: number): string {
    return `${this.#space()}${this.#bare(depth)}${this.#space()}`;
  }

  string(): string {
    const random = this.#random;
    if (random.chance(0.03)) return `"${'long '.repeat(random.between(30, 400))}"`;
    return `"${Array.from({ length: random.small(6) }, () => random.pick(pieces)).join('')}"`;
  }

  number(): string {
    const random = this.#random;
    if (random.chance(0.5)) return random.pick(numbers);
    const fraction = random.chance(0.3) ? `.${random.next()}` : '';
    const exponent = random.chance(0.2)
      ? `${random.pick(['e', 'E'])}${random.pick(['', '+', '-'])}${random.int(40)}`
      : '';
    return `${random.chance(0.3) ? '-' : ''}${random.int(10 ** random.int(9))}${fraction}${exponent}`;
  }

  #bare(depth: number): string {
    const random = this.#random;
    const isLeaf = depth <= 0 || this.#left-- <= 0;
    switch (isLeaf ? random.int(4) : random.int(7)) {
      case 0:
      case 1:
        return this.string();
      case 2:
        return this.number();
      case 3:
        return random.pick(['true', 'false', 'null']);
      case 4:
        return `[${Array.from({ length: random.small(4) }, () => this.value(depth - 1)).join(',') || this.#space()}]`;
      default:
        return this.object(depth);
    }
  }

  #name(): string {
    const random = this.#random;
    if (random.chance(0.08)) return `"${disguised(random, random.pick(provenanceNames))}"`;
    return random.chance(0.8) ? JSON.stringify(random.pick(plainNames)) : this.string();
  }

  #space(): string {
    return this.#random.pick(spaces);
  }
}

/** The same name once escapes are decoded and case is folded, or nearly so. */
function disguised(random: Random, name: string): string {
  const parts = [...name].map((letter) => {
    if (random.chance(0.15)) return `\\u00${letter.charCodeAt(0).toString(16)}`;
    if (random.chance(0.1)) return `\\u00${letter.toUpperCase().charCodeAt(0).toString(16).toUpperCase()}`;
    return random.chance(0.15) ? letter.toUpperCase() : letter;
  });
  if (random.chance(0.1)) parts.push(random.pick(['s', ' ', '\\u0000', '_']));
  return parts.join('');
}

/** Nested so deep that a limit on depth is passed, or nearly so. */
export function deep(random: Random, depth: number): string {
  const isArray = random.chance(0.5);
  const [open, close] = isArray ? ['[', ']'] : ['{"a":', '}'];
  const closes = random.chance(0.8) ? depth : depth - 1;
  return `{"n":1,"d":${open.repeat(depth)}1${close.repeat(closes)}}`;
}
