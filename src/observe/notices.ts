/**
 * The last hundred notices of an ingestion. What is said again within two minutes is one notice with a count: an outage
 * of one server must not push everything else out. Pure: the time is given. Imports: model.
 */
import { partitionNames } from '../model/partition-name.js';
import type { NewNotice, Notice } from './notice.js';

const MAX_NOTICES = 100;
/** A server that is gone is asked again every ten seconds at least; healing partitions wait for longer. */
const SAME_WITHIN_MS = 120_000;

interface Kept {
  readonly notice: Notice;
  readonly places: ReadonlyMap<string, Set<number>>;
}

export class Notices {
  /** By their ids; what was told last stands last. */
  readonly #kept = new Map<number, Kept>();
  #lastId = 0;

  /** Oldest first, by when they were told last. */
  get all(): readonly Notice[] {
    return [...this.#kept.values()].map(({ notice }) => notice);
  }

  /** Gives the notice as it stands now: a new one, or the earlier one with its count. */
  add(told: NewNotice): Notice {
    const same = this.#sameAs(told);
    if (same !== undefined) this.#kept.delete(same.notice.id);
    const places = placesWith(same?.places, told);
    const notice: Notice = {
      ...told,
      id: same?.notice.id ?? (this.#lastId += 1),
      atMs: same?.notice.atMs ?? told.atMs,
      lastMs: told.atMs,
      times: (same?.notice.times ?? 0) + 1,
      // Made when somebody reads it: thousands of partitions may fail in the same second.
      get where() {
        return places.size === 0 ? undefined : partitionNames(places);
      },
    };
    this.#kept.set(notice.id, { notice, places });
    const [oldest] = this.#kept.keys();
    if (this.#kept.size > MAX_NOTICES && oldest !== undefined) this.#kept.delete(oldest);
    return notice;
  }

  #sameAs({ kind, level, text, hint, atMs }: NewNotice): Kept | undefined {
    for (const kept of this.#kept.values()) {
      const { notice } = kept;
      const isSame = notice.text === text && notice.kind === kind && notice.level === level && notice.hint === hint;
      if (isSame && atMs - notice.lastMs <= SAME_WITHIN_MS) return kept;
    }
    return undefined;
  }
}

function placesWith(
  earlier: ReadonlyMap<string, Set<number>> = new Map(),
  { topic, partition }: NewNotice,
): ReadonlyMap<string, Set<number>> {
  if (topic === undefined || partition === undefined) return earlier;
  const partitions = (earlier.get(topic) ?? new Set()).add(partition);
  return earlier.has(topic) ? earlier : new Map([...earlier, [topic, partitions]]);
}
