/**
 * The watcher at the ports. It sees every call and both sides' truth, and tells which invariant of the design was
 * broken, at the moment it is. Imports: model, ports.
 */
import type { Assignment, KafkaRecord } from '../model/record.js';
import type { Intent, PartitionState } from '../model/state.js';
import { dedupToken } from '../model/token.js';
import type { Claim, InsertBatch, SourceEvent, StateKey } from '../ports.js';
import type { SimulatedLog } from './log.js';
import { Seen, type SavedWatch } from './seen.js';
import type { SimulatedTable } from './table.js';

/** The invariants of the exactly-once arrangement, by the numbers `docs/testing.md` gives them. */
export type Invariant =
  'I1' | 'I2' | 'I3' | 'I4' | 'I5' | 'I6' | 'I7' | 'I8' | 'I9' | 'I10' | 'I11' | 'I12' | 'I15' | 'I16';

/** An invariant that was broken, and how. */
export interface Violation {
  readonly invariant: Invariant;
  readonly what: string;
}

export class InvariantChecker {
  readonly violations: Violation[] = [];
  readonly #seen = new Seen();

  constructor(
    private readonly log: SimulatedLog,
    private readonly table: SimulatedTable,
    private readonly rowsOf: (record: KafkaRecord) => number,
  ) {}

  /** What was seen so far, for a search that comes back to it. */
  save(): SavedWatch {
    return this.#seen.save();
  }

  restore(saved: SavedWatch): void {
    this.#seen.restore(saved);
  }

  /**
   * Of assignments of which nothing will be heard any more: what they claimed, and that they were lost, does not
   * matter.
   */
  forget(isGone: (assignmentId: number) => boolean): void {
    this.#seen.forget(isGone);
  }

  /** Of assignments that wait for no claim. */
  forgetClaims(isGone: (assignmentId: number) => boolean): void {
    this.#seen.forgetClaims(isGone);
  }

  /** As it was written last, whoever wrote it. */
  settled(partition: number): number | undefined {
    return this.#seen.states.get(partition)?.settled;
  }

  told(event: SourceEvent): void {
    if (event.kind === 'lost') this.#seen.lost.add(event.assignment.assignmentId);
  }

  asked(call: string, { partition, assignmentId }: Pick<Assignment, 'partition' | 'assignmentId'>): void {
    if (this.#seen.lost.has(assignmentId))
      this.#break('I9', `${call} of partition ${partition} for assignment ${assignmentId}, which was lost`);
  }

  claiming({ partition }: StateKey, owner: string): void {
    this.asked('claim', { partition, assignmentId: epochOf(owner) });
  }

  claimed({ key, owner, state }: Claim): void {
    this.#seen.states.set(key.partition, state);
    const assignmentId = epochOf(owner);
    // A claim whose reply was late is made again, or lands again: what was sent under the first one stays sent, and
    // what it has recorded since is its own.
    const isAgain = this.#seen.claimedBy.get(key.partition) === assignmentId;
    const before = this.#seen.claims.get(assignmentId);
    this.#seen.claimedBy.set(key.partition, assignmentId);
    this.#seen.claims.set(assignmentId, {
      state: (isAgain ? before?.state : undefined) ?? state,
      resolved: before?.resolved ?? new Set(),
    });
    this.#record(key, state);
  }

  writing({ key, owner }: Claim): void {
    this.asked('write', { partition: key.partition, assignmentId: epochOf(owner) });
  }

  written(key: StateKey, after: PartitionState): void {
    const before = this.#seen.states.get(key.partition);
    this.#seen.states.set(key.partition, after);
    this.#record(key, after);
    if (before === undefined || before.incarnation !== after.incarnation || before.topicId !== after.topicId) {
      if (before !== undefined && after.incarnation < before.incarnation)
        this.#break('I4', `partition ${key.partition}: incarnation ${before.incarnation} became ${after.incarnation}`);
      return;
    }
    const settled = after.settled ?? -1;
    if (settled < (before.settled ?? -1))
      this.#break('I4', `partition ${key.partition}: settled ${before.settled} became ${after.settled}`);
    const replaced = before.pending.filter(
      ({ first, last }) =>
        last > settled && !after.pending.some((intent) => intent.first === first && intent.last === last),
    );
    if (replaced.length > 0) this.#expectParts(key, replaced, before, after);
    if (settled > (before.settled ?? -1)) this.#expectInTable(key.partition, before, after);
    for (const intent of after.pending) {
      const isNew = !before.pending.some(({ first }) => first === intent.first);
      const there = this.#live(key.partition, intent.first, intent.last, after.topicId).length;
      if (isNew && intent.rows < there)
        this.#break(
          'I7',
          `partition ${key.partition}: ${intent.first}-${intent.last} is recorded with ${intent.rows} records, the log has ${there}`,
        );
    }
  }

  committing({ partition, topicId }: Assignment, nextOffset: number): void {
    const state = this.#seen.states.get(partition);
    if (state === undefined || state.topicId !== topicId) return;
    if (nextOffset > (state.settled ?? -1) + 1)
      this.#break('I6', `partition ${partition}: committed ${nextOffset}, settled ${state.settled ?? 'nothing'}`);
  }

  /** An insert, or a look at the table instead of one, is about to be sent. */
  inserting(call: string, batch: InsertBatch): void {
    const { assignment, afterOffset, lastOffset, token, intent } = batch;
    this.asked(call, assignment);
    if (token === undefined || intent === undefined) return;
    const { partition, topicId } = assignment;
    const range = `partition ${partition}: ${afterOffset + 1}-${lastOffset}`;
    if (this.#seen.topicOfToken.has(token) && this.#seen.topicOfToken.get(token) !== topicId)
      this.#break('I10', `${range} has the token of another topic: ${token}`);
    this.#seen.topicOfToken.set(token, topicId);
    const recorded = this.#seen.recorded.get(token);
    if (recorded === undefined) {
      const isRecorded = [...this.#seen.recorded.values()].some(
        (other) =>
          other.topicId === topicId && other.intent.first === intent.first && other.intent.last === intent.last,
      );
      this.#break(isRecorded ? 'I2' : 'I1', `${range} is sent under ${token}, which is not recorded`);
    } else if (recorded.intent.first !== afterOffset + 1 || recorded.intent.last !== lastOffset) {
      this.#break('I2', `${range} is sent as ${recorded.intent.first}-${recorded.intent.last}`);
    }
    this.#expectResolved(batch, range);
    // A look may be taken at a part of it: nothing is sent.
    if (call === 'insert') this.#expectWhole(batch, recorded?.intent ?? intent, range);
  }

  blocks(token: string, rows: number, blockRows: number): void {
    const cut = rows > blockRows ? blockRows : Infinity;
    const before = this.#seen.blockRows.get(token) ?? cut;
    if (before !== cut) this.#break('I8', `${token}: blocks of ${before} rows, then of ${cut}`);
    this.#seen.blockRows.set(token, cut);
  }

  /** An insert has come to the table `id`. The first one of a range may meet another table than was recorded. */
  landing(token: string, { intent, replay, assignment: { assignmentId } }: InsertBatch, id: string | undefined): void {
    const recorded = intent?.written?.id;
    // Who never sent it, and did not take it over, cannot know that another one has.
    const isKnown = replay ? this.#seen.landed.has(token) : this.#seen.landed.get(token)?.has(assignmentId) === true;
    if (isKnown && recorded !== undefined && recorded !== id)
      this.#break('I15', `${token} is sent again into ${id}, it was recorded for ${recorded}`);
  }

  /** It was not refused. */
  landed(token: string, { assignment: { assignmentId } }: InsertBatch): void {
    this.#seen.landed.set(token, (this.#seen.landed.get(token) ?? new Set()).add(assignmentId));
    if (this.#seen.replaced.has(token))
      this.#break('I16', `an attempt under ${token} lands after its range was recorded in other parts`);
  }

  /** An attempt took effect as a whole: the table knows the token wherever its rows belong. */
  took(token: string): void {
    this.#seen.taken.add(token);
  }

  /** Rows of a range are about to be sent under another token than its own. */
  filling({ assignment, token, afterOffset, lastOffset }: InsertBatch): void {
    this.asked('fill', assignment);
    if (token === undefined || this.#seen.taken.has(token)) return;
    this.#break(
      'I16',
      `partition ${assignment.partition}: ${afterOffset + 1}-${lastOffset} is filled before an attempt under ${token} was answered`,
    );
  }

  /** The server was killed in the middle of this insert. */
  torn({ assignment: { partition }, records }: InsertBatch): void {
    for (const { offset } of records) this.#seen.torn.add(`${partition}:${offset}`);
  }

  #expectResolved({ assignment: { partition, assignmentId }, intent, replay }: InsertBatch, range: string): void {
    const claim = this.#seen.claims.get(assignmentId);
    if (claim === undefined || intent === undefined) return;
    claim.resolved.add(intent.first);
    const { state } = claim;
    const now = this.#seen.states.get(partition);
    if (replay || now === undefined || now.incarnation !== state.incarnation || now.topicId !== state.topicId) return;
    for (const { first, last, excluded } of state.pending) {
      if (first >= intent.first || claim.resolved.has(first)) continue;
      const left = this.#live(partition, first, last, state.topicId).filter(
        (record) => !excluded.includes(record.offset) && this.rowsOf(record) > 0,
      );
      if (left.length > 0)
        this.#break('I3', `${range} is sent before ${first}-${last}, which was in doubt at the claim`);
    }
  }

  #expectWhole(
    { assignment, afterOffset, lastOffset, records }: InsertBatch,
    { excluded }: Intent,
    range: string,
  ): void {
    const sent = new Set(records.map(({ offset }) => offset));
    const live = this.#live(assignment.partition, afterOffset + 1, lastOffset, assignment.topicId);
    const left = live.find(
      (record) => !sent.has(record.offset) && !excluded.includes(record.offset) && this.rowsOf(record) > 0,
    );
    if (left !== undefined) this.#break('I12', `${range} is sent without ${left.offset}, and that is not recorded`);
  }

  /**
   * Ranges that are recorded in other parts: the same offsets, nothing left in again, and no row of them in the table,
   * but of records that the topic has no more: those are in no part, and nobody can send them again.
   */
  #expectParts(key: StateKey, replaced: readonly Intent[], before: PartitionState, after: PartitionState): void {
    const { topic, partition } = key;
    const last = before.pending.at(-1)!.last;
    const parts = after.pending.filter(
      (intent) =>
        intent.first <= last &&
        !before.pending.some((other) => other.first === intent.first && other.last === intent.last),
    );
    const excluded = new Set(parts.flatMap((part) => part.excluded));
    const isCovered = spansOf(replaced) === spansOf(parts);
    for (const intent of replaced) {
      const range = `partition ${partition}: ${intent.first}-${intent.last}`;
      if (!isCovered) this.#break('I4', `${range} was in doubt and is not told of any more`);
      if (intent.excluded.some((offset) => !excluded.has(offset)))
        this.#break('I12', `${range} is recorded in parts that do not tell what was left out`);
      const found = this.table.countAll(topic, partition, intent.first, intent.last);
      if (this.#live(partition, intent.first, intent.last, before.topicId).some(({ offset }) => found.has(offset)))
        this.#break('I16', `${range} is recorded in other parts, and rows of it are in the table`);
      this.#seen.replaced.add(dedupToken({ ...key, topicId: before.topicId, incarnation: before.incarnation, intent }));
    }
  }

  #expectInTable(partition: number, before: PartitionState, after: PartitionState): void {
    const first = (before.settled ?? this.log.ends(partition).start - 1) + 1;
    const settled = after.settled ?? -1;
    const excluded = new Set(before.pending.flatMap((intent) => intent.excluded));
    const found = this.table.countAll(this.log.topic, partition, first, settled);
    for (const record of this.#live(partition, first, settled, after.topicId)) {
      if (excluded.has(record.offset) || this.rowsOf(record) === 0 || (found.get(record.offset) ?? 0) > 0) continue;
      const isTorn = this.#seen.torn.has(`${partition}:${record.offset}`);
      this.#break(
        isTorn ? 'I11' : 'I5',
        `partition ${partition}: settled ${settled}, but ${record.offset} is not in the table`,
      );
      return;
    }
  }

  #live(partition: number, first: number, last: number, topicId: string | undefined): readonly KafkaRecord[] {
    if (topicId !== undefined && topicId !== this.log.topicId) return [];
    return this.log.records(partition).filter(({ offset }) => offset >= first && offset <= last);
  }

  #record({ cluster, group, topic, partition }: StateKey, { pending, topicId, incarnation }: PartitionState): void {
    for (const intent of pending) {
      const token = dedupToken({ cluster, group, topic, topicId, incarnation, partition, intent });
      this.#seen.recorded.set(token, { intent, topicId, incarnation });
      this.#seen.replaced.delete(token);
    }
  }

  #break(invariant: Invariant, what: string): void {
    this.violations.push({ invariant, what });
  }
}

/** The offsets that ranges cover, as text: ranges without a hole between them are one. */
function spansOf(intents: readonly Intent[]): string {
  const spans: (readonly [first: number, last: number])[] = [];
  for (const { first, last } of intents) {
    const before = spans.at(-1);
    if (before !== undefined && before[1] + 1 === first) spans.splice(-1, 1, [before[0], last]);
    else spans.push([first, last]);
  }
  return JSON.stringify(spans);
}

/** The ledger claims as `<owner>#<epoch>`. */
function epochOf(owner: string): number {
  return Number(owner.slice(owner.lastIndexOf('#') + 1));
}
