// What becomes of tombstones in the chaos run. Those of the plain topic a transform drops, those of the compacted one come
// to the insert and are left out as poison; neither has a row, and the workers count both.
import type { Transform } from '../../operators/transform-rows.js';
import type { Log } from './oracle.js';
import type { Told } from './told.js';
import { topics } from './traffic.js';

export function policyOf(topic: string): 'dropped' | 'excluded' {
  return topic === topics.plain.topic ? 'dropped' : 'excluded';
}

export const rowsOf: Transform = ({ value }) => value;

/** With the rule taken out: one row of a tombstone, with what its columns have by default. */
export const rowsOfTombstonesToo: Transform = ({ value }) => value ?? {};

export interface Counted {
  /** By the event `filtered`: a range that was replayed once. */
  readonly dropped: number;
  /** By the event `excluded`: an offset once. */
  readonly excluded: number;
  /** Where more or fewer were counted than the topic holds: as `topic/partition@offset`, or with a range. */
  readonly uncounted: readonly string[];
}

interface Range {
  readonly first: number;
  readonly last: number;
}

/** The tombstones of the topics against what the workers told of them. */
export function countedOf(log: Log, told: readonly Told[]): Counted {
  const counted = { dropped: 0, excluded: 0, uncounted: [] as string[] };
  for (const [place, records] of log) {
    const [topic] = place.split('/');
    const toldOfIt = told.filter((one) => `${one.topic}/${one.partition}` === place);
    const tombstones = [...records].filter(([, { value }]) => value === undefined).map(([offset]) => offset);
    const { count, uncounted } = policyOf(topic!) === 'dropped' ? dropped(tombstones, toldOfIt) : excluded(tombstones, toldOfIt);
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
  const ranges = new Map(told.filter(({ what }) => what === 'filtered').map(({ detail, filtered = 0 }) => [detail!, filtered]));
  const without = new Set(tombstones);
  const differing: string[] = [];
  for (const [range, filtered] of ranges) {
    const inside = tombstones.filter(isIn([rangeOf(range)]));
    for (const offset of inside) without.delete(offset);
    if (inside.length !== filtered) differing.push(`${range} (${inside.length}, counted ${filtered})`);
  }
  return { count: [...ranges.values()].reduce((sum, filtered) => sum + filtered, 0), uncounted: [...differing, ...[...without].map(String)] };
}

/** Who died between recording that a record is left out and telling so left it to the next owner to tell. */
function excluded(tombstones: readonly number[], told: readonly Told[]): OfPlace {
  const offsets = new Set(told.filter(({ what }) => what === 'excluded').map(({ detail }) => Number(detail)));
  return { count: offsets.size, uncounted: tombstones.filter((offset) => !offsets.has(offset)).map(String) };
}

function rangeOf(text: string): Range {
  const [first, last] = text.split('-').map(Number);
  return { first: first!, last: last! };
}

const isIn = (ranges: readonly Range[]) => (offset: number): boolean => ranges.some(({ first, last }) => first <= offset && offset <= last);
