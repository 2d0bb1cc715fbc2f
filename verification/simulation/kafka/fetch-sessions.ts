// Imports: nothing. What one broker remembers of fetches (KIP-227): sessions in few slots, which it forgets when it is
// restarted, when others want the slot, and now and then for no reason that a client could see.

export interface SessionPartition {
  readonly id: string;
  readonly partition: number;
  readonly offset: number;
  readonly maxBytes: number;
}

export interface SessionAsked {
  readonly sessionId: number;
  readonly epoch: number;
  readonly partitions: readonly SessionPartition[];
  readonly forgotten: readonly { readonly id: string; readonly partition: number }[];
}

export interface Remembered extends SessionPartition {
  /** The end of the log that was last told; -1: none was. */
  toldEnd: number;
}

interface Session {
  epoch: number;
  usedMs: number;
  readonly partitions: Map<string, Remembered>;
}

/** `session`: 0 where there is none. */
export type Opened =
  | { readonly code: number }
  | {
      readonly code: 0;
      readonly session: number;
      readonly isIncremental: boolean;
      readonly partitions: readonly Remembered[];
    };

const UNKNOWN_SESSION = 70;
const OTHER_EPOCH = 71;
const SLOTS = 2;
const IDLE_MS = 2000;
/** Sessions of this age are forgotten. */
const LAST_EPOCH = 40;
/** After this epoch another one is due than the client thinks. */
const ODD_EPOCH = 25;

const nameOf = ({ id, partition }: { readonly id: string; readonly partition: number }): string => `${id}/${partition}`;

export class FetchSessions {
  readonly #sessions = new Map<number, Session>();
  #lastId = 100;

  clear(): void {
    this.#sessions.clear();
  }

  open(asked: SessionAsked, nowMs: number): Opened {
    const { sessionId, epoch, partitions } = asked;
    if (epoch > 0) return this.#goOn(asked, nowMs);
    this.#sessions.delete(sessionId);
    const remembered = partitions.map((each): Remembered => ({ ...each, toldEnd: -1 }));
    const session = epoch === 0 ? this.#add(remembered, nowMs) : 0;
    return { code: 0, session, isIncremental: false, partitions: remembered };
  }

  /** It had something: others come first the next time. */
  answered(id: number, each: Remembered): void {
    const { partitions } = this.#sessions.get(id) ?? {};
    if (partitions?.delete(nameOf(each)) === true) partitions.set(nameOf(each), each);
  }

  #goOn({ sessionId, epoch, partitions, forgotten }: SessionAsked, nowMs: number): Opened {
    const session = this.#sessions.get(sessionId);
    if (session === undefined) return { code: UNKNOWN_SESSION };
    if (session.epoch !== epoch) return { code: OTHER_EPOCH };
    if (epoch === LAST_EPOCH) this.#sessions.delete(sessionId);
    session.epoch += epoch === ODD_EPOCH ? 2 : 1;
    session.usedMs = nowMs;
    for (const each of partitions)
      session.partitions.set(nameOf(each), { ...each, toldEnd: session.partitions.get(nameOf(each))?.toldEnd ?? -1 });
    for (const each of forgotten) session.partitions.delete(nameOf(each));
    return { code: 0, session: sessionId, isIncremental: true, partitions: [...session.partitions.values()] };
  }

  #add(partitions: readonly Remembered[], nowMs: number): number {
    for (const [id, { usedMs }] of this.#sessions)
      if (this.#sessions.size >= SLOTS && nowMs - usedMs > IDLE_MS) this.#sessions.delete(id);
    if (this.#sessions.size >= SLOTS) return 0;
    this.#sessions.set(++this.#lastId, {
      epoch: 1,
      usedMs: nowMs,
      partitions: new Map(partitions.map((each) => [nameOf(each), each])),
    });
    return this.#lastId;
  }
}
