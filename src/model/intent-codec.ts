/**
 * The ranges in doubt of a stored state: how they are written, read, and checked. Pure; imports the model only.
 * What several ranges have in common (fingerprint, table) is written once, and each has its number there.
 * Imports: nothing.
 */
import type { Intent, TableRecord } from './state.js';

/** Throws; `why` says what is wrong. */
export type Refuse = (why: string, hint?: string) => never;

/** Most offsets that one range may be without: a damaged list must not fill the memory. */
export const MOST_EXCLUDED = 100_000;

/** The fields of a stored state that tell of its ranges. */
interface StoredIntents {
  /** What several ranges share; a range that is alone with it has the value itself. */
  readonly settings?: readonly string[];
  readonly targets?: readonly StoredTarget[];
  readonly pending: readonly StoredIntent[];
}

/** The names of the tables alone where nothing else is known. */
type StoredTarget = readonly string[] | ({ readonly tables: readonly string[] } & TableRecord);

interface StoredIntent {
  readonly first: number;
  readonly last: number;
  readonly rows: number;
  readonly atMs: number;
  /** Or the index in `settings`. */
  readonly settings: string | number;
  /** Or the index in `targets`. */
  readonly target: StoredTarget | number;
  readonly floor?: number;
  /** The version of the transform. */
  readonly transform?: string;
  readonly filling?: true;
  readonly unseen?: true;
  readonly unknownUntilMs?: number;
  readonly excluded?: string;
  readonly token?: string;
  /** Which form the token has; left out for what is usual: 2, or 1 where nothing is known of the table. */
  readonly form?: 1 | 2;
}

/** Fields that say nothing are left out, what is long and the same is written once: the value is short of space. */
export function toStored(pending: readonly Intent[]): StoredIntents {
  const settings = new Shared(pending.map((intent) => intent.settings));
  const targets = new Shared(
    pending.map(({ tables, written }): StoredTarget => (written === undefined ? tables : { tables, ...written })),
  );
  const ranges = pending.map((intent, index): StoredIntent => {
    const {
      first,
      last,
      rows,
      atMs,
      floor = first,
      transformVersion,
      isFilling,
      isUnseen,
      unknownUntilMs,
      excluded,
      token,
      tokenForm = 1,
      written,
    } = intent;
    return {
      first,
      last,
      rows,
      atMs,
      settings: settings.of(index),
      target: targets.of(index),
      ...(floor === first ? {} : { floor }),
      ...(transformVersion === undefined ? {} : { transform: transformVersion }),
      ...(isFilling === true ? { filling: true } : {}),
      ...(isUnseen === true ? { unseen: true } : {}),
      ...(unknownUntilMs === undefined ? {} : { unknownUntilMs }),
      ...(excluded.length === 0 ? {} : { excluded: toRanges(excluded) }),
      ...(token === undefined ? {} : { token }),
      ...(tokenForm === usualForm(written) ? {} : { form: tokenForm }),
    };
  });
  return { ...settings.named('settings'), ...targets.named('targets'), pending: ranges };
}

function usualForm(written: unknown): 1 | 2 {
  return written === undefined ? 1 : 2;
}

/** Values of which those that are long and there several times are kept once. */
class Shared<T> {
  readonly #texts: readonly string[];
  readonly #kept: string[] = [];

  constructor(readonly values: readonly T[]) {
    this.#texts = values.map((value) => JSON.stringify(value));
    for (const text of this.#texts) {
      const count = this.#texts.filter((other) => other === text).length;
      if (count > 1 && text.length > SHARED_LENGTH && !this.#kept.includes(text)) this.#kept.push(text);
    }
  }

  of(index: number): T | number {
    const at = this.#kept.indexOf(this.#texts[index]!);
    return at < 0 ? this.values[index]! : at;
  }

  named(name: string): Record<string, readonly T[]> {
    return this.#kept.length === 0 ? {} : { [name]: this.#kept.map((text) => JSON.parse(text) as T) };
  }
}

/** Shorter values cost less than a list of them. */
const SHARED_LENGTH = 24;

/** The ranges of a stored state of any format, unchecked but for what reading them needs. */
export function fromStored(
  value: Readonly<Record<string, unknown>>,
  format: number,
  refuse: Refuse,
): readonly Intent[] {
  const { pending } = value;
  if (!Array.isArray(pending)) return refuse(`"pending" is ${shown(pending)}, expected a list`);
  const entries = pending.map((entry: unknown, index): readonly [Record<string, unknown>, string] => {
    const at = `pending[${index}]`;
    return isObject(entry) ? [entry, at] : refuse(`${at} is ${shown(entry)}, expected an object`);
  });
  if (format >= 3) return entries.map(([entry, at]) => fromFormat3(value, entry, at, refuse));
  // Whoever wrote it did not say what was settled when a range was recorded: not more than at the last write.
  const floor = entries[0]?.[0].first as number;
  return entries.map(([{ first, last, rows, atMs, settings, tables, excluded, token }, at]) => ({
    ...({ first, last, rows, atMs, settings, tables } as Pick<
      Intent,
      'first' | 'last' | 'rows' | 'atMs' | 'settings' | 'tables'
    >),
    ...(floor === first ? {} : { floor }),
    excluded: fromRanges(excluded, `${at}.excluded`, refuse),
    ...(token === undefined ? {} : { token: token as string }),
  }));
}

function fromFormat3(
  value: Readonly<Record<string, unknown>>,
  entry: Readonly<Record<string, unknown>>,
  at: string,
  refuse: Refuse,
): Intent {
  const { first, last, rows, atMs, floor, transform, filling, unseen, unknownUntilMs, excluded = '', token } = entry;
  const listed = (list: 'settings' | 'targets', field: 'settings' | 'target'): unknown => {
    const index = entry[field];
    if (typeof index !== 'number') return index;
    const all = value[list];
    if (!Array.isArray(all)) return refuse(`"${list}" is ${shown(all)}, expected a list`);
    return isSafe(index) && index < all.length
      ? (all[index] as unknown)
      : refuse(`${at}.${field} is ${shown(index)}, expected an index in "${list}"`);
  };
  const target = listed('targets', 'target');
  if (!Array.isArray(target) && !isObject(target))
    return refuse(`${at}: the target is ${shown(target)}, expected a list or an object`);
  const { tables, ...record } = Array.isArray(target) ? { tables: target } : target;
  const written = Array.isArray(target) ? undefined : (record as unknown as TableRecord);
  const { form = usualForm(written) } = entry;
  if (form !== 1 && form !== 2) return refuse(`${at}.form is ${shown(form)}, expected 1 or 2`);
  return {
    ...({ first, last, rows, atMs, settings: listed('settings', 'settings'), tables } as Pick<
      Intent,
      'first' | 'last' | 'rows' | 'atMs' | 'settings' | 'tables'
    >),
    ...(written === undefined ? {} : { written }),
    ...(floor === undefined ? {} : { floor: floor as number }),
    ...(transform === undefined ? {} : { transformVersion: transform as string }),
    ...(filling === true ? { isFilling: true } : {}),
    ...(unseen === true ? { isUnseen: true } : {}),
    ...(unknownUntilMs === undefined ? {} : { unknownUntilMs: unknownUntilMs as number }),
    excluded: fromRanges(excluded, `${at}.excluded`, refuse),
    ...(token === undefined ? {} : { token: token as string }),
    ...(form === 2 ? { tokenForm: form } : {}),
  };
}

/** Everything one range must fulfil, whether it is about to be written or was just read. */
export function checkIntent(intent: Intent, at: string, refuse: Refuse): void {
  const {
    first,
    last,
    rows,
    atMs,
    settings,
    tables,
    excluded,
    token,
    floor = first,
    transformVersion,
    unknownUntilMs = 0,
  } = intent;
  for (const [field, value] of Object.entries({ first, last, rows, atMs, floor, unknownUntilMs })) {
    if (!isSafe(value)) refuse(`${at}.${field} is ${shown(value)}, expected a whole number from 0 to 2^53 - 1`);
  }
  if (first > last) refuse(`${at} begins at ${first}, after its end ${last}`);
  if (floor > first) refuse(`${at}.floor is ${floor}, expected at most where the range begins, ${first}`);
  if (token !== undefined && typeof token !== 'string') refuse(`${at}.token is ${shown(token)}, expected a string`);
  if (transformVersion !== undefined && typeof transformVersion !== 'string')
    refuse(`${at}.transform is ${shown(transformVersion)}, expected a string`);
  if (typeof settings !== 'string') refuse(`${at}.settings is ${shown(settings)}, expected a string`);
  if (!Array.isArray(tables) || tables.some((table) => typeof table !== 'string')) {
    refuse(`${at}.tables is ${shown(tables)}, expected a list of strings`);
  }
  checkWritten(intent.written, at, refuse);
  if (excluded.length > MOST_EXCLUDED) refuse(`${at} excludes more than ${MOST_EXCLUDED} offsets`);
  let before = first - 1;
  for (const offset of excluded) {
    if (!isSafe(offset) || offset <= before || offset > last) {
      refuse(`${at}.excluded has ${shown(offset)}, expected ascending offsets from ${first} to ${last}`);
    }
    before = offset;
  }
}

function checkWritten(written: TableRecord | undefined, at: string, refuse: Refuse): void {
  if (written === undefined) return;
  const { id, columns, shape, alteredS, mutation } = written;
  for (const [field, value] of Object.entries({ id: id ?? '', columns, shape })) {
    if (typeof value !== 'string') refuse(`${at}: the table's ${field} is ${shown(value)}, expected a string`);
  }
  for (const [field, value] of Object.entries({ alteredS: alteredS ?? 0, mutation: mutation ?? 0 })) {
    if (!isSafe(value)) refuse(`${at}: the table's ${field} is ${shown(value)}, expected a whole number from 0`);
  }
}

/** `[43, 50, 51, 52]` as `43,50-52`. */
function toRanges(offsets: readonly number[]): string {
  const ranges: string[] = [];
  for (let from = 0, to = 0; from < offsets.length; from = to) {
    for (to = from + 1; to < offsets.length && offsets[to] === Number(offsets[to - 1]) + 1;) to++;
    ranges.push(to - from === 1 ? `${offsets[from]}` : `${offsets[from]}-${offsets[to - 1]}`);
  }
  return ranges.join(',');
}

function fromRanges(text: unknown, at: string, refuse: Refuse): readonly number[] {
  if (typeof text !== 'string') return refuse(`${at} is ${shown(text)}, expected ranges such as "43,50-52"`);
  if (text === '') return [];
  const offsets: number[] = [];
  for (const range of text.split(',')) {
    const [, from, to = from] = /^(\d{1,16})(?:-(\d{1,16}))?$/.exec(range) ?? [];
    const [first, last] = [Number(from), Number(to)];
    if (!isSafe(first) || !isSafe(last) || last < first) return refuse(`${at} has the range "${range}"`);
    // Before it is unfolded: a damaged range must not fill the memory.
    if (offsets.length + last - first >= MOST_EXCLUDED) return refuse(`${at} names more than ${MOST_EXCLUDED} offsets`);
    for (let offset = first; offset <= last; offset++) offsets.push(offset);
  }
  return offsets;
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export function isSafe(value: unknown, least = 0): value is number {
  return Number.isSafeInteger(value) && (value as number) >= least;
}

export function shown(value: unknown): string {
  return value === undefined
    ? 'missing'
    : beginning(typeof value === 'number' ? String(value) : JSON.stringify(value), 40);
}

export function beginning(text: string, length = 120): string {
  return text.length > length ? `${text.slice(0, length)}…` : text;
}
