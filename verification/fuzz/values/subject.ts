// The product's check of values. The only file of this kind that knows where it is.
import { objectFault } from '../../../src/clickhouse/json-object.js';

/** Why the value in `data` from `start` up to `end` may not be sent; undefined: it may. */
export interface ValueCheck {
  readonly name: string;
  fault(data: Buffer, start: number, end: number): string | undefined;
}

/** Every implementation there is; their answers must be equal to the letter. */
export async function valueChecks(_names: readonly string[]): Promise<readonly ValueCheck[]> {
  return [{ name: 'objectFault', fault: (data, start, end) => objectFault(data, start, end) }];
}

/** Broken on purpose, as the check once was: what is wrong inside of the braces is left to the server. */
export function brokenChecks(): readonly ValueCheck[] {
  return [{ name: 'braces only', fault: (data, start, end) => (bracesMatch(data.subarray(start, end)) ? undefined : 'has braces that do not match') }];
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
