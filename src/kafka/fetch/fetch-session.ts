/**
 * Fetch sessions (KIP-227): the broker remembers what was asked for, so a request names only what
 * changed, and an answer only what has something to tell. No sockets, no positions. Imports: nothing.
 */
import type { FetchPartition } from './fetch-partition.js';

/** What goes along with a request. */
export interface SessionHead {
  /** 0: none yet. */
  readonly id: number;
  /** 0: everything is asked for, and a new session begins; -1: no session is wanted. */
  readonly epoch: number;
}

export interface SessionRequest extends SessionHead {
  /** New to the session, or asked for at another offset or size than before. */
  readonly partitions: readonly FetchPartition[];
  /** No longer to be answered, by topic id. */
  readonly forgotten: readonly { readonly topicId: string; readonly partitions: readonly number[] }[];
}

export const NO_SESSION: SessionHead = { id: 0, epoch: -1 };

const MAX_EPOCH = 2 ** 31 - 1;
const UNKNOWN_SESSION = 'error 70';
/** 71: another epoch was due; 106: the session goes by topic names. */
const REFUSALS: ReadonlySet<unknown> = new Set([UNKNOWN_SESSION, 'error 71', 'error 106']);

interface Remembered {
  offset: number;
  maxBytes: number;
  /** The request that it was last asked for in. */
  round: number;
}

interface RememberedTopic {
  readonly name: string;
  readonly partitions: Map<number, Remembered>;
}

/** True for a request that the broker would take as the first of a new session. */
export function isSessionRefused(thrown: unknown): boolean {
  return REFUSALS.has((thrown as { type?: unknown } | undefined)?.type);
}

/** What one broker remembers of our requests, as far as we know. One request at a time. */
export class FetchSession {
  #id = 0;
  #epoch = 0;
  #round = 0;
  #size = 0;
  #socket: unknown;
  readonly #topics = new Map<string, RememberedTopic>();

  /** The next request names only what changed. */
  get isIncremental(): boolean {
    return this.#epoch > 0;
  }

  /** The name of a topic that may be answered. */
  nameOf(topicId: string | undefined): string | undefined {
    return topicId === undefined ? undefined : this.#topics.get(topicId)?.name;
  }

  /** What has to be sent so that all of these partitions, each with a topic id, and no others are answered. */
  next(wanted: readonly FetchPartition[]): SessionRequest {
    if (!this.isIncremental) this.#forgetAll();
    this.#round++;
    const partitions = wanted.filter((partition) => this.#isChange(partition));
    const forgotten = this.#size > wanted.length ? this.#forgetOthers() : [];
    return { id: this.#id, epoch: this.#epoch, partitions, forgotten };
  }

  /** Before each request: the socket that it will go over. */
  goesOver(socket: unknown): void {
    // Who answers behind another one may never have heard of the session, or have given its number to somebody else.
    if (this.#socket !== socket || (socket as { destroyed?: unknown } | undefined)?.destroyed === true) this.#lose();
  }

  /** `id`: of the answer. @throws when it belongs to another session: what it leaves out means nothing then. */
  answered(id: number, socket: unknown): void {
    if (this.isIncremental && id !== 0 && id !== this.#id)
      throw new Error(`a fetch was answered under the session ${id}`);
    // 0: the broker has no room for a session, or none any more.
    this.#epoch = id === 0 ? 0 : this.#epoch === MAX_EPOCH ? 1 : this.#epoch + 1;
    this.#id = id;
    this.#socket = socket;
  }

  /** Nobody knows what the broker took. The next request asks for everything, and ends the session there. */
  broken(thrown: unknown): void {
    if ((thrown as { type?: unknown } | undefined)?.type === UNKNOWN_SESSION) this.#lose();
    else this.#epoch = 0;
  }

  #lose(): void {
    this.#epoch = 0;
    this.#id = 0;
  }

  #forgetAll(): void {
    this.#topics.clear();
    this.#size = 0;
  }

  #isChange({ topic, topicId, partition, offset, maxBytes }: FetchPartition): boolean {
    const id = topicId as string;
    let remembered = this.#topics.get(id);
    if (remembered === undefined) this.#topics.set(id, (remembered = { name: topic, partitions: new Map() }));
    const before = remembered.partitions.get(partition);
    if (before === undefined) {
      remembered.partitions.set(partition, { offset, maxBytes, round: this.#round });
      this.#size++;
      return true;
    }
    before.round = this.#round;
    if (before.offset === offset && before.maxBytes === maxBytes) return false;
    before.offset = offset;
    before.maxBytes = maxBytes;
    return true;
  }

  #forgetOthers(): { topicId: string; partitions: number[] }[] {
    const forgotten: { topicId: string; partitions: number[] }[] = [];
    for (const [topicId, { partitions }] of this.#topics) {
      const gone = [...partitions].filter(([, { round }]) => round !== this.#round).map(([partition]) => partition);
      if (gone.length === 0) continue;
      for (const partition of gone) partitions.delete(partition);
      this.#size -= gone.length;
      if (partitions.size === 0) this.#topics.delete(topicId);
      forgotten.push({ topicId, partitions: gone });
    }
    return forgotten;
  }
}
