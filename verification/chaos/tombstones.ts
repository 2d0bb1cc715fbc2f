// What becomes of tombstones in the chaos run. Those of the plain topic a transform drops, those of the compacted one come
// to the insert, which goes on without them; neither has a row, and the workers count both.
import type { Transform } from '../../operators/between/transform-rows.js';
import type { Log } from './oracle.js';
import type { Told } from './told.js';
import { topics } from './traffic.js';

export function policyOf(topic: string): 'dropped' | 'skipped' {
  return topic === topics.plain.topic ? 'dropped' : 'skipped';
}

export const rowsOf: Transform = ({ value }) => value;

/** With the rule taken out: one row of a tombstone, with what its columns have by default. */
export const rowsOfTombstonesToo: Transform = ({ value }) => value ?? {};

export interface Counted {
  /** By the event `filtered`: a range that was replayed once. */
  readonly dropped: number;
  /** By the event `tombstones`: a range that was replayed once. */
  readonly skipped: number;
  /** Where more or fewer were counted than the topic holds: as `topic/partition@offset`, or with a range. */
  readonly uncounted: readonly string[];
}

interface Range {
  readonly first: number;
  readonly last: number;
}

/** The tombstones of the topics against what the workers told of them. */
export function countedOf(log: Log, told: readonly Told[]): Counted {
  const counted = { dropped: 0, skipped: 0, uncounted: [] as string[] };
  for (const [place, records] of log) {
    const [topic] = place.split('/');
    const toldOfIt = told.filter((one) => `${one.topic}/${one.partition}` === place);
    const tombstones = [...records].filter(([, { value }]) => value === undefined).map(([offset]) => offset);
    const { count, uncounted } =
      policyOf(topic!) === 'dropped' ? dropped(tombstones, toldOfIt) : skipped(tombstones, toldOfIt);
    counted[policyOf(topic!)] += count;
    counted.uncounted.push(...uncounted.map((at) => `${place}@${at}`));
  }
  return counted;
}

interface OfPlace {
  readonly count: number;
  readonly uncounted: readonly string[];
}

/** Nothing is compacted away there, so each range has as many as were counted of it. */
function dropped(tombstones: readonly number[], told: readonly Told[]): OfPlace {
  const ranges = new Map(
    told.filter(({ what }) => what === 'filtered').map(({ detail, filtered = 0 }) => [detail!, filtered]),
  );
  const without = new Set(tombstones);
  const differing: string[] = [];
  for (const [range, filtered] of ranges) {
    const inside = tombstones.filter(isIn([rangeOf(range)]));
    for (const offset of inside) without.delete(offset);
    if (inside.length !== filtered) differing.push(`${range} (${inside.length}, counted ${filtered})`);
  }
  return {
    count: [...ranges.values()].reduce((sum, filtered) => sum + filtered, 0),
    uncounted: [...differing, ...[...without].map(String)],
  };
}

/** Compaction takes some of them away, so a range may have had more than it has now. */
function skipped(tombstones: readonly number[], told: readonly Told[]): OfPlace {
  const ranges = new Map(
    told.filter(({ what }) => what === 'tombstones').map(({ detail, filtered = 0 }) => [detail!, filtered]),
  );
  const without = tombstones.filter((offset) => !isIn([...ranges.keys()].map(rangeOf))(offset)).map(String);
  const differing = [...ranges].flatMap(([range, counted]) => {
    const inside = tombstones.filter(isIn([rangeOf(range)])).length;
    return inside > counted ? [`${range} (${inside}, counted ${counted})`] : [];
  });
  return {
    count: [...ranges.values()].reduce((sum, counted) => sum + counted, 0),
    uncounted: [...differing, ...without],
  };
}

function rangeOf(text: string): Range {
  const [first, last] = text.split('-').map(Number);
  return { first: first!, last: last! };
}

const isIn =
  (ranges: readonly Range[]) =>
  (offset: number): boolean =>
    ranges.some(({ first, last }) => first <= offset && offset <= last);
