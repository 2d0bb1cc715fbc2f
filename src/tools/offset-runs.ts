/**
 * What the log says there should be against what the table has, as runs of offsets. Pure. Imports: nothing.
 */

/** Consecutive offsets that have, or should have, the same number of rows each. Both ends are included. */
export interface Run {
  readonly first: number;
  readonly last: number;
  readonly rows: number;
}

/** Offsets of one kind: how many, and the first few. */
export interface Found {
  readonly count: number;
  readonly first: readonly number[];
}

export interface Difference {
  /** Fewer rows than there should be. */
  readonly missing: Found;
  /** More rows than there should be. */
  readonly doubled: Found;
  /** Rows of an offset that should have none. */
  readonly unexpected: Found;
}

export const noDifference: Difference = { missing: none(), doubled: none(), unexpected: none() };

function none(): Found {
  return { count: 0, first: [] };
}

/** Compares offset by offset without unfolding a run. Both lists are ascending, and no two runs of one overlap. */
export function compareRuns(expected: readonly Run[], found: readonly Run[], show: number): Difference {
  const into = { missing: collector(show), doubled: collector(show), unexpected: collector(show) };
  let [i, j, at] = [0, 0, -Infinity];
  for (;;) {
    while (expected[i] !== undefined && expected[i]!.last < at) i++;
    while (found[j] !== undefined && found[j]!.last < at) j++;
    const [wanted, there] = [expected[i], found[j]];
    const start = Math.max(at, Math.min(wanted?.first ?? Infinity, there?.first ?? Infinity));
    if (start === Infinity) break;
    const hasBegun = (run: Run | undefined) => run !== undefined && run.first <= start;
    // Up to where nothing changes: the end of a run that has begun, or the offset before one that has not.
    const last = Math.min(
      ...[wanted, there].map((run) => (run === undefined ? Infinity : hasBegun(run) ? run.last : run.first - 1)),
    );
    const [should = 0, has = 0] = [hasBegun(wanted) ? wanted?.rows : 0, hasBegun(there) ? there?.rows : 0];
    if (has < should) into.missing.add(start, last);
    else if (has > should && should > 0) into.doubled.add(start, last);
    else if (has > should) into.unexpected.add(start, last);
    at = last + 1;
  }
  return { missing: into.missing.found(), doubled: into.doubled.found(), unexpected: into.unexpected.found() };
}

/** Differences of adjacent ranges as one; the earlier one first. */
export function joinDifferences(a: Difference, b: Difference, show: number): Difference {
  const join = (x: Found, y: Found): Found => ({
    count: x.count + y.count,
    first: [...x.first, ...y.first].slice(0, show),
  });
  return {
    missing: join(a.missing, b.missing),
    doubled: join(a.doubled, b.doubled),
    unexpected: join(a.unexpected, b.unexpected),
  };
}

function collector(show: number): { add(first: number, last: number): void; found(): Found } {
  const first: number[] = [];
  let count = 0;
  return {
    add: (from, to) => {
      count += to - from + 1;
      for (let offset = from; offset <= to && first.length < show; offset++) first.push(offset);
    },
    found: () => ({ count, first }),
  };
}

/** Makes runs of offsets that come one by one, ascending. */
export class RunBuilder {
  readonly #runs: { first: number; last: number; rows: number }[] = [];

  get length(): number {
    return this.#runs.length;
  }

  add(offset: number, rows: number): void {
    if (rows === 0) return;
    const last = this.#runs.at(-1);
    if (last !== undefined && last.last === offset - 1 && last.rows === rows) last.last = offset;
    else this.#runs.push({ first: offset, last: offset, rows });
  }

  /** The runs so far; the builder is empty then. */
  take(): readonly Run[] {
    return this.#runs.splice(0);
  }
}
