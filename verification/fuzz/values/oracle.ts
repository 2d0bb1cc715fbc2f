// What a value is, by JSON.parse and by the exceptions that the documents name; nothing of the product's own code.

/**
 * Where the product takes less than JSON.parse, as docs/guarantees.md says. This is the one place of the fuzzers that
 * knows: another rule is changed here, or is a finding.
 */
export const exceptions = {
  /** Levels of objects and arrays, the outermost counted: beyond it ClickHouse names no record. */
  mostLevels: 1000,
  /** A `\ud800` that is not one half of a pair, which ClickHouse refuses with code 25. */
  takesLoneSurrogates: true,
  /** Bytes that are no UTF-8, inside of strings. */
  takesInvalidUtf8: true,
};

export type Expected = { readonly kind: 'taken' } | { readonly kind: 'refused'; readonly why: string };

const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
const strictDecoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const taken: Expected = { kind: 'taken' };
const refused = (why: string): Expected => ({ kind: 'refused', why });

/** `names`: the provenance columns that the product fills, which a value may not name on its first level. */
export function expected(bytes: Uint8Array, names: readonly string[]): Expected {
  let value: unknown;
  try {
    value = JSON.parse(decoder.decode(bytes));
  } catch {
    return refused('JSON.parse refuses it');
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return refused('it is no object');
  if (levelsOf(value) > exceptions.mostLevels) return refused('it is nested too deep');
  const forged = Object.keys(value).find((name) => names.includes(asciiLower(name)));
  if (forged !== undefined) return refused('it names a provenance column');
  if (!exceptions.takesInvalidUtf8 && !isUtf8(bytes)) return refused('it is no UTF-8');
  if (!exceptions.takesLoneSurrogates && hasLoneSurrogate(value)) return refused('it has a lone surrogate');
  return taken;
}

/** As ClickHouse compares names since 26.5: the letters of ASCII only. */
function asciiLower(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
}

/** Level by level, since a value may be nested deeper than a stack. */
function levelsOf(value: object): number {
  let levels = 0;
  for (let level: object[] = [value]; level.length > 0; levels++) {
    level = level.flatMap((each) =>
      Object.values(each).filter((inner): inner is object => typeof inner === 'object' && inner !== null),
    );
  }
  return levels;
}

function isUtf8(bytes: Uint8Array): boolean {
  try {
    strictDecoder.decode(bytes);
    return true;
  } catch {
    return false;
  }
}

/** Half of a pair alone: such a text does not survive being encoded. */
function hasLone(text: string): boolean {
  return Buffer.from(text).toString('utf8') !== text;
}

function hasLoneSurrogate(value: object): boolean {
  for (let level: unknown[] = [value]; level.length > 0;) {
    const next: unknown[] = [];
    for (const each of level) {
      if (typeof each === 'string' && hasLone(each)) return true;
      if (typeof each !== 'object' || each === null) continue;
      if (Object.keys(each).some((name) => hasLone(name))) return true;
      next.push(...(Object.values(each) as unknown[]));
    }
    level = next;
  }
  return false;
}
