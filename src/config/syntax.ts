/**
 * A configuration's text becomes a value. What is wrong is told by its line and column and in words of
 * our own: the parsers' messages quote what stands there, which may be a password. Imports: yaml.
 */
import { isScalar, LineCounter, parseDocument, visit, type Document, type YAMLError } from 'yaml';

/** Where the text is no JSON or YAML, and why. */
export class BadSyntax extends Error {
  override readonly name = 'BadSyntax';
}

/** @throws `BadSyntax` */
export function parseJson(text: string): unknown {
  const plain = withoutMark(text);
  try {
    return JSON.parse(plain) as unknown;
  } catch {
    const { at, what } = new JsonScan(plain).fault();
    throw new BadSyntax(`${placeOf(plain, at)}: ${what}`);
  }
}

/** @throws `BadSyntax` */
export function parseYaml(text: string): unknown {
  const plain = withoutMark(text);
  const lines = new LineCounter();
  const document = parseDocument(plain, { prettyErrors: false, lineCounter: lines });
  const [fault] = [...document.errors, ...document.warnings];
  if (fault !== undefined)
    throw new BadSyntax(`${placeOf(plain, startOf(fault, document))}: ${yamlFaults[fault.code] ?? 'this is not YAML'}`);
  try {
    return document.toJS() as unknown;
  } catch {
    throw new BadSyntax(
      `an alias (* at the beginning of a value) that names no anchor, or too many of them: put the value into quotes`,
    );
  }
}

const yamlFaults: Partial<Readonly<Record<YAMLError['code'], string>>> = {
  BAD_ALIAS: 'an alias that names nothing: put a value that begins with * into quotes',
  BAD_DQ_ESCAPE: 'an escape that is not known, after a backslash in double quotes: use single quotes',
  BAD_INDENT: 'the indentation does not fit, or a bracket is not closed',
  BAD_SCALAR_START: 'a value begins with a character that YAML keeps for itself: put it into quotes',
  BLOCK_AS_IMPLICIT_KEY: 'a mapping where a value should be: look at the indentation and at quotes',
  DUPLICATE_KEY: 'the key stands there twice',
  MISSING_CHAR: 'a quote or bracket is not closed, or a character is missing, that begins or stands here',
  MULTILINE_IMPLICIT_KEY: 'a key that goes over several lines: look for a quote or colon that is missing',
  TAB_AS_INDENT: 'a tab as indentation: use spaces',
  TAG_RESOLVE_FAILED: 'a value that begins with ! is taken for a tag: put it into quotes',
  UNEXPECTED_TOKEN: 'something stands here that does not belong: look for a quote, a colon or the indentation',
};

/** A quote that is not closed is noticed at the end only: it is looked for where it begins. */
function startOf({ code, pos: [at] }: YAMLError, document: Document): number {
  if (code !== 'MISSING_CHAR') return at;
  let begin = at;
  visit(document, {
    Scalar: (_key, node) => {
      if (
        isScalar(node) &&
        (node.type === 'QUOTE_DOUBLE' || node.type === 'QUOTE_SINGLE') &&
        node.range != null &&
        node.range[0] <= at &&
        node.range[2] >= at
      )
        begin = node.range[0];
    },
  });
  return begin;
}

/** Some editors put it before the text. */
function withoutMark(text: string): string {
  return text.replace(/^\uFEFF/, '');
}

function placeOf(text: string, at: number): string {
  const before = text.slice(0, at).split('\n');
  return `line ${before.length}, column ${before.at(-1)!.length + 1}`;
}

interface Fault {
  readonly at: number;
  readonly what: string;
}

/** Finds where a text stops being JSON. */
class JsonScan {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  fault(): Fault {
    const inside = this.#value(0);
    if (inside !== undefined) return inside;
    this.#blank();
    return this.#here(this.#at < this.#text.length ? 'something follows the end of the object' : 'this is not JSON');
  }

  #here(what: string, at = this.#at): Fault {
    return { at, what: at >= this.#text.length ? `the file ends too early: ${what}` : what };
  }

  #take(pattern: RegExp): boolean {
    pattern.lastIndex = this.#at;
    const [found] = pattern.exec(this.#text) ?? [];
    if (found === undefined) return false;
    this.#at += found.length;
    return true;
  }

  #blank(): void {
    this.#take(/[ \t\r\n]*/y);
  }

  #value(depth: number): Fault | undefined {
    this.#blank();
    if (depth > 100) return this.#here('brackets lie too deep');
    if (this.#take(/\{/y)) return this.#list('}', () => this.#entry(depth));
    if (this.#take(/\[/y)) return this.#list(']', () => this.#value(depth + 1));
    if (this.#text[this.#at] === '"') return this.#string();
    if (this.#take(/(?:-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null)(?![\w.+-])/y)) return undefined;
    return this.#here('expected a value: text stands in double quotes');
  }

  #entry(depth: number): Fault | undefined {
    this.#blank();
    if (this.#text[this.#at] !== '"')
      return this.#here('expected a key in double quotes, without a comma before the closing bracket');
    const key = this.#string();
    if (key !== undefined) return key;
    this.#blank();
    return this.#take(/:/y) ? this.#value(depth + 1) : this.#here('expected a colon after the key');
  }

  #list(end: '}' | ']', item: () => Fault | undefined): Fault | undefined {
    const close = end === '}' ? /\}/y : /\]/y;
    this.#blank();
    if (this.#take(close)) return undefined;
    for (;;) {
      const fault = item();
      if (fault !== undefined) return fault;
      this.#blank();
      if (this.#take(close)) return undefined;
      if (!this.#take(/,/y))
        return this.#here(
          `expected a comma or ${end}: look for a quote or comma that is missing here or in the line before`,
        );
    }
  }

  #string(): Fault | undefined {
    const begin = this.#at;

    if (this.#take(/"(?:[^"\\\u0000-\u001F]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y)) return undefined;

    this.#take(/"(?:[^"\\\u0000-\u001F]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*/y);
    if (this.#text[this.#at] === '\\')
      return this.#here('a backslash before a character that it cannot stand before: a backslash itself is \\\\');
    return { at: begin, what: 'text that begins here is not closed by a quote in its line' };
  }
}
