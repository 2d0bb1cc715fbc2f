/**
 * Byte credits, the source's back-pressure. What was delivered and is not done is outstanding; a partition with
 * too much of it is not asked for more. Pure accounting: no clock, no Kafka. Imports: nothing.
 */

/** So that fetching does not become a trickle when little room is left. */
const MIN_FETCH_BYTES = 64 * 1024;
/** Memory held for each byte fetched, until it has been seen; compression makes it more than one. */
const FIRST_GUESS_RATIO = 3;

interface Account {
  outstanding: number;
  /** Nothing is done before everything up to this offset was delivered. */
  needs: number;
  paused: boolean;
  /** Memory held for each byte fetched, as it was lately. */
  ratio: number;
  /** Chunks that are not done, oldest first. */
  readonly chunks: { readonly lastOffset: number; readonly held: number }[];
}

export interface Delivery {
  readonly lastOffset: number;
  /** Memory the chunk holds on to, bytes. */
  readonly held: number;
  /** Bytes that came over the wire for it. */
  readonly fetched: number;
}

/**
 * Each partition may hold `budget / partitions`; it pauses at that and resumes at half of it. All together may hold the
 * budget, and again half of it resumes; but a partition that holds nothing may always fetch once, so that partitions
 * whose inserts hang cannot starve the others. One at a time may exceed all that: a partition with a range in doubt
 * that is larger than its share (it was recorded when the share was larger) could never go on otherwise, nor one whose
 * next record batch unpacks to more. So at most the budget, one fetch for each partition as far as its batches are not
 * large, and the ranges in doubt or the large batch of one are held.
 */
export class Credits {
  readonly #budget: number;
  readonly #accounts = new Map<number, Account>();
  /** Large batches that are being unpacked: what they will hold. */
  readonly #unpacking = new Map<number, number>();
  /** Something large waits for room: any that is made is told. */
  #hasRefused = false;
  #outstanding = 0;
  #full = false;
  /** The partition whose turn it is to exceed. */
  #exceeding: number | undefined;

  constructor(budgetBytes: number) {
    this.#budget = budgetBytes;
  }

  /** Memory that is held in all, bytes. */
  get outstanding(): number {
    return this.#outstanding;
  }

  open(assignmentId: number): void {
    this.#accounts.set(assignmentId, {
      outstanding: 0,
      needs: -1,
      paused: false,
      ratio: FIRST_GUESS_RATIO,
      chunks: [],
    });
  }

  /** Nothing of it is held any more, or it is not ours to count: revoked, lost, halted. */
  close(assignmentId: number): void {
    this.forget(assignmentId);
    this.#accounts.delete(assignmentId);
    this.#unpacking.delete(assignmentId);
    if (this.#exceeding === assignmentId) this.#exceeding = undefined;
  }

  delivered(assignmentId: number, { lastOffset, held, fetched }: Delivery): void {
    const account = this.#accounts.get(assignmentId);
    if (account === undefined) return;
    account.chunks.push({ lastOffset, held });
    account.outstanding += held;
    if (fetched > 0) account.ratio = Math.max(1, account.ratio * 0.5 + (held / fetched) * 0.5);
    this.#add(held);
    this.#decide(account);
  }

  /** Chunks that end at or before the offset are done. Tells whether that let a partition, or all, go on. */
  done(assignmentId: number, lastOffset: number): boolean {
    const account = this.#accounts.get(assignmentId);
    if (account === undefined) return false;
    let count = 0;
    let freed = 0;
    for (const chunk of account.chunks) {
      if (chunk.lastOffset > lastOffset) break;
      count++;
      freed += chunk.held;
    }
    if (count === 0) return false;
    account.chunks.splice(0, count);
    const isRelieved = this.#exceeding === assignmentId && lastOffset >= account.needs;
    if (isRelieved) this.#exceeding = undefined;
    const isAwaited = this.#hasRefused;
    this.#hasRefused = false;
    return this.#release(account, freed) || isRelieved || isAwaited;
  }

  /** Nothing of it will be done before everything up to `lastOffset` was delivered. */
  need(assignmentId: number, lastOffset: number): void {
    const account = this.#accounts.get(assignmentId);
    if (account !== undefined) account.needs = lastOffset;
  }

  /** What was delivered of it is thrown away: a seek. */
  forget(assignmentId: number): void {
    const account = this.#accounts.get(assignmentId);
    if (account === undefined) return;
    account.chunks.length = 0;
    this.#release(account, account.outstanding);
  }

  /** Is there no room for more of it before some of it is done? Changes nothing. */
  isFull(assignmentId: number): boolean {
    const account = this.#accounts.get(assignmentId);
    return account !== undefined && account.outstanding > 0 && (account.paused || this.#full);
  }

  /** `next`: the offset it goes on at. */
  mayFetch(assignmentId: number, next: number): boolean {
    const account = this.#accounts.get(assignmentId);
    if (account === undefined) return false;
    this.#decide(account);
    if (account.outstanding === 0 || (!account.paused && !this.#full)) return true;
    if (next > account.needs) return false;
    this.#exceeding ??= assignmentId;
    return this.#exceeding === assignmentId;
  }

  /**
   * May a large batch be unpacked to so many bytes? `next`: the offset it goes on at. Within the partition's share, or
   * within what is left of the budget, always. Beyond it one at a time may, of a partition that holds nothing: it could
   * never go on otherwise.
   */
  mayUnpack(assignmentId: number, bytes: number, next: number): boolean {
    const account = this.#accounts.get(assignmentId);
    if (account === undefined) return false;
    const isNeeded = account.outstanding === 0 || next <= account.needs;
    const isAllowed =
      this.#fits(account, bytes) || (isNeeded && (this.#exceeding === undefined || this.#exceeding === assignmentId));
    if (!isAllowed) this.#hasRefused = true;
    return isAllowed;
  }

  /** It is being unpacked, and ends at `lastOffset`. `unpacked` follows. */
  unpacks(assignmentId: number, bytes: number, lastOffset: number): void {
    const account = this.#accounts.get(assignmentId);
    if (account === undefined) return;
    if (!this.#fits(account, bytes)) {
      this.#exceeding ??= assignmentId;
      account.needs = Math.max(account.needs, lastOffset);
    }
    this.#unpacking.set(assignmentId, bytes);
  }

  /** It was, and what was delivered of it is counted; or nothing came of it. */
  unpacked(assignmentId: number): void {
    this.#unpacking.delete(assignmentId);
    if (this.#exceeding === assignmentId && this.#accounts.get(assignmentId)?.outstanding === 0)
      this.#exceeding = undefined;
  }

  #fits({ outstanding }: Account, bytes: number): boolean {
    let unpacking = 0;
    for (const each of this.#unpacking.values()) unpacking += each;
    return outstanding + bytes <= this.share || this.#outstanding + unpacking + bytes <= this.#budget;
  }

  /** How many bytes to ask for, at most `limit`. */
  fetchBytes(assignmentId: number, limit: number): number {
    const account = this.#accounts.get(assignmentId);
    if (account === undefined || this.#exceeding === assignmentId) return limit;
    const room = (this.share - account.outstanding) / account.ratio;
    return Math.floor(Math.min(limit, Math.max(room, MIN_FETCH_BYTES)));
  }

  /** What each partition may hold, bytes. */
  get share(): number {
    return this.#budget / Math.max(1, this.#accounts.size);
  }

  #release(account: Account, freed: number): boolean {
    this.#decide(account);
    const before = { full: this.#full, paused: account.paused, held: account.outstanding > 0 };
    account.outstanding -= freed;
    this.#add(-freed);
    this.#decide(account);
    const emptied = before.held && account.outstanding === 0;
    return (before.full && !this.#full) || (before.paused && !account.paused) || emptied;
  }

  /**
   * Shares change with every partition that comes or goes: each account is looked at when it matters, not all of them
   * then.
   */
  #decide(account: Account): void {
    const { share } = this;
    if (account.outstanding >= share) account.paused = true;
    else if (account.outstanding <= share / 2) account.paused = false;
  }

  #add(bytes: number): void {
    this.#outstanding += bytes;
    if (this.#outstanding >= this.#budget) this.#full = true;
    else if (this.#outstanding <= this.#budget / 2) this.#full = false;
  }
}
