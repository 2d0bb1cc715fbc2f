// The product's check of values. The only file of this kind that knows where it is.
import {
  checkByTwin,
  checkValues,
  faultText,
  hasKernel,
  type ProvenanceName,
  reservedNames,
  type ValueCursor,
} from '../../../src/kernel/index.js';

/** Where a value lies. */
export interface ValuePlace {
  readonly data: Buffer;
  readonly start: number;
  readonly end: number;
}

/** The first value that may not be sent, and why. */
export interface ValueRefusal {
  readonly index: number;
  /** Where the value is wrong, and how, in the product's words. */
  readonly text: string;
}

/** One implementation: of many values, as a batch has them, the first at fault. */
export interface ValueCheck {
  readonly name: string;
  first(places: readonly ValuePlace[]): ValueRefusal | undefined;
}

/** Every implementation there is; their answers must be equal to the letter. */
export function valueChecks(names: readonly ProvenanceName[]): readonly ValueCheck[] {
  if (!hasKernel()) throw new Error('there is no WebAssembly here: nothing is compared');
  const reserved = reservedNames(names);
  const by = (check: typeof checkValues) => (places: readonly ValuePlace[]) => {
    const { fault, bytes } = check(cursorOver(places), reserved);
    if (fault === undefined)
      return bytes === bytesOf(places) ? undefined : { index: -1, text: `counts ${bytes} bytes` };
    const { data, start, end } = places[fault.index]!;
    return { index: fault.index, text: faultText(fault, data, start, end) };
  };
  return [
    { name: 'the kernel', first: by(checkValues) },
    { name: 'the twin', first: by(checkByTwin) },
  ];
}

function cursorOver(places: readonly ValuePlace[]): ValueCursor {
  let index = -1;
  return {
    next: () => ++index < places.length,
    get data() {
      return places[index]!.data;
    },
    get valueStart() {
      return places[index]!.start;
    },
    get valueLength() {
      return places[index]!.end - places[index]!.start;
    },
  };
}

function bytesOf(places: readonly ValuePlace[]): number {
  return places.reduce((sum, { start, end }) => sum + end - start, 0);
}

/** Broken on purpose, as the check once was: what is wrong inside of the braces is left to the server. */
export function brokenChecks(): readonly ValueCheck[] {
  const first = (places: readonly ValuePlace[]): ValueRefusal | undefined => {
    const index = places.findIndex(({ data, start, end }) => !bracesMatch(data.subarray(start, end)));
    return index < 0 ? undefined : { index, text: 'has braces that do not match' };
  };
  return [{ name: 'braces only', first }];
}

function bracesMatch(value: Buffer): boolean {
  let depth = 0;
  let isString = false;
  const text = value.toString('latin1').trim();
  for (let at = 0; at < text.length; at++) {
    const letter = text[at];
    if (letter === '"') isString = !isString;
    else if (isString && letter === '\\') at++;
    else if (!isString && letter === '{') depth++;
    else if (!isString && letter === '}' && --depth === 0) return at === text.length - 1;
  }
  return false;
}
