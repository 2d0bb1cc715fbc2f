/**
 * A partition's state as one line of JSON that a person can read, and back. Pure; imports the model and the
 * error class.
 *
 * ```json
 * {"v":3,"owner":"ingest-7/412","write":"9f2c41d0a7b3-5","settled":41,"incarnation":0,"topicId":"h1Qq…","pending":[
 *   {"first":42,"last":99,"rows":57,"atMs":1795000000000,"settings":"…","target":{"tables":["db.t"],"id":"2057c3d3-…",
 *    "columns":"tpo-1f3c9a","shape":"90aa31c4","alteredS":1794990000},"excluded":"43,50-52"}]}
 * ```
 * Imports: errors.
 */
import { IngestError } from '../errors.js';
import {
  beginning,
  checkIntent,
  fromStored,
  isObject,
  isSafe,
  MOST_EXCLUDED,
  type Refuse,
  shown,
  toStored,
} from './intent-codec.js';
import { emptyState, type HaltNote, type PartitionState } from './state.js';

/** What a store keeps of one partition. */
export interface StoredState {
  readonly state: PartitionState;
  /** Who wrote it last. */
  readonly owner: string;
  /** Names this very write; no two writes share it, so a writer that lost the reply knows its own value again. */
  readonly write: string;
}

/** Whose state it is, for the messages. */
export interface StateName {
  readonly cluster: string;
  readonly group: string;
  readonly topic: string;
  readonly partition: number;
}

/** The format that is written. A change that an older program must not ignore needs the next number. */
export const stateFormat = 3;
/** The oldest that is read: 1 knows neither `topicId` nor `token`, 2 not what a range was written to. */
const oldestFormat = 1;

/**
 * Limits of a stored value. `bytes` is below what Kafka takes as the metadata of an offset commit (4,096). The space
 * of the longest owner and write is set aside, so that a state which one owner could write fits for every other.
 */
export const stateLimits = { bytes: 4000, ownerBytes: 200, writeBytes: 60, excluded: MOST_EXCLUDED } as const;

/**
 * What a source commits beside an offset that it chose itself, since the group had committed nothing: where to begin,
 * not how far anybody has got. It stands where a state may stand, and is none.
 */
export const chosenOffset = 'chosen';

/** What a store has of a partition that nobody ever claimed. */
export const neverStored: StoredState = Object.freeze({ state: emptyState, owner: '', write: '' });

/** Errors with `KCR_STATE_INVALID` when the state is not sound or too long; then nothing may be written. */
export function encodeState(stored: StoredState, name: StateName): string {
  const { state, owner, write } = stored;
  const refuse = (why: string): never => {
    throw invalid(name, `A state is not written: ${why}`);
  };
  checkState(state, refuse);
  if (jsonBytes(owner) > stateLimits.ownerBytes)
    refuse(`the owner's name takes more than ${stateLimits.ownerBytes} bytes`);
  if (jsonBytes(write) > stateLimits.writeBytes)
    refuse(`the write's name takes more than ${stateLimits.writeBytes} bytes`);
  const { settled = null, incarnation, topicId, isOffsetReused, began, halted } = state;
  const text = (note?: HaltNote) =>
    JSON.stringify({
      v: stateFormat,
      owner,
      write,
      settled,
      incarnation,
      topicId,
      isAnew: isOffsetReused,
      began,
      halted: note,
      ...toStored(state.pending),
    });
  const spare = stateLimits.ownerBytes - jsonBytes(owner) + stateLimits.writeBytes - jsonBytes(write);
  const noted = text(halted);
  if (utf8Bytes(noted) + spare <= stateLimits.bytes) return noted;
  // What only people read must not keep from being written what decisions rest on.
  const bare = text();
  const bytes = utf8Bytes(bare) + spare;
  if (bytes > stateLimits.bytes) {
    const excluded = state.pending.reduce((sum, intent) => sum + intent.excluded.length, 0);
    refuse(
      `it takes ${bytes} bytes of at most ${stateLimits.bytes} (${state.pending.length} ranges, ${excluded} ` +
        'excluded offsets)',
    );
  }
  return bare;
}

/** Errors with `KCR_STATE_INVALID`, naming the key and showing how the value begins. */
export function decodeState(text: string, name: StateName): StoredState {
  const refuse: Refuse = (why, hint) => {
    throw invalid(name, `A stored state cannot be used: ${why}. It begins with: ${beginning(text)}`, hint);
  };
  const value = parsed(text, refuse);
  if (!isObject(value)) return refuse('it is not a JSON object');
  const { v, owner, write, settled, incarnation, topicId, isAnew, began } = value;
  const halted = haltNote(value['halted']);
  if (isSafe(v) && v > stateFormat) {
    return refuse(
      `it was written by a newer version of this program (format ${v}; this version knows format ${stateFormat})`,
      'upgrade this program to the version of the one that wrote it.',
    );
  }
  if (!isSafe(v, oldestFormat)) return refuse(`its format "v" is ${shown(v)}, expected ${stateFormat}`);
  if (typeof owner !== 'string') return refuse(`"owner" is ${shown(owner)}, expected a string`);
  if (typeof write !== 'string') return refuse(`"write" is ${shown(write)}, expected a string`);
  if (settled === undefined) return refuse('"settled" is missing; it is null where nothing was settled');
  const state = {
    settled: settled === null ? undefined : settled,
    pending: fromStored(value, v, refuse),
    incarnation,
    topicId,
    ...(isAnew === true ? { isOffsetReused: isAnew } : {}),
    ...(began === undefined ? {} : { began }),
    ...(halted === undefined ? {} : { halted }),
  } as PartitionState;
  checkState(state, refuse);
  return { state, owner, write };
}

/** How messages name a key. */
export function stateName({ cluster, group, topic, partition }: StateName): string {
  return `cluster ${cluster}, group ${group}, topic ${topic}, partition ${partition}`;
}

/** Everything a state must fulfil, whether it is about to be written or was just read. */
function checkState(state: PartitionState, refuse: Refuse): void {
  const { settled, pending, incarnation, topicId, began } = state;
  if (settled !== undefined && !isSafe(settled, -1)) refuse(`"settled" is ${shown(settled)}, expected an offset`);
  if (!isSafe(incarnation)) refuse(`"incarnation" is ${shown(incarnation)}, expected a whole number from 0`);
  if (topicId !== undefined && (typeof topicId !== 'string' || topicId === ''))
    refuse(`"topicId" is ${shown(topicId)}, expected Kafka's id of the topic`);
  if (began !== undefined && !isSafe(began)) refuse(`"began" is ${shown(began)}, expected an offset`);
  let before = settled;
  pending.forEach((intent, index) => {
    const at = `pending[${index}]`;
    checkIntent(intent, at, refuse);
    if (before !== undefined && intent.first !== before + 1) {
      const after = index === 0 ? `settled is ${before}` : `pending[${index - 1}] ends at ${before}`;
      refuse(`${at} begins at ${intent.first}, but ${after}: the ranges are not contiguous`);
    }
    before = intent.last;
  });
}

/** No decision depends on it: what is not understood is not there. */
function haltNote(value: unknown): HaltNote | undefined {
  if (!isObject(value)) return undefined;
  const { code, atMs, heals } = value;
  return typeof code === 'string' && /^KCR_[A-Z_]{1,40}$/u.test(code) && isSafe(atMs) && typeof heals === 'boolean'
    ? { code, atMs, heals }
    : undefined;
}

function parsed(text: string, refuse: Refuse): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return refuse('it is not JSON');
  }
}

function invalid({ cluster, group, topic, partition }: StateName, message: string, hint?: string): IngestError {
  return new IngestError('KCR_STATE_INVALID', `${message} [cluster ${cluster}, group ${group}]`, {
    topic,
    partition,
    hint,
  });
}

const utf8 = new TextEncoder();

function utf8Bytes(text: string): number {
  return utf8.encode(text).length;
}

function jsonBytes(text: string): number {
  return utf8Bytes(JSON.stringify(text)) - 2;
}
