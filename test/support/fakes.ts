// Ports for marble tests. Each call plays a script, `'--k'`: it takes two frames and ends as `k` says (see `endings`);
// `'--'` never answers, `'--|'` ends without a value. The last script of a list is played again and again. Every call is noted with its frame.
import {
  EMPTY,
  NEVER,
  asyncScheduler,
  concatMap,
  defer,
  finalize,
  of,
  tap,
  throwError,
  timer,
  type Observable,
} from 'rxjs';
import { fitOf } from '../../src/clickhouse/insert/block-limits.js';
import { IngestError, type ErrorCode, type ErrorFields } from '../../src/errors.js';
import type { Delivered, IngestEvent } from '../../src/events.js';
import { bytesOf } from '../../src/model/batch.js';
import type { Assignment, Batch, Chunk, KafkaRecord } from '../../src/model/record.js';
import { partitionOf } from '../../operators/internal/partition.js';
import type { PartitionLedger } from '../../src/ledger.js';
import { emptyState, type Intent, type PartitionState } from '../../src/model/state.js';
import type { BufferedBatch, CommittedBatch, RecordedBatch } from '../../src/stages.js';
import type {
  PreparingSink,
  Claim,
  PreparedInsert,
  GroupSource,
  InsertBatch,
  InsertResult,
  LogEnds,
  Partition,
  ReadBack,
  SourceEvent,
  StateKey,
  StateStore,
  Stored,
} from '../../src/ports.js';

// --- values

export function tenure(partition = 0, assignmentId = partition + 1, startOffset = 0): Assignment {
  return { topic: 'clicks', partition, assignmentId, generation: assignmentId, startOffset };
}

/** The tenures most tests use: of partition 0 and of partition 1. */
export const p0 = tenure(0);
export const p1 = tenure(1);

export function record(offset: number, value = `{"n":${offset}}`): KafkaRecord {
  return { offset, timestampMs: 1_000 + offset, key: null, value: Buffer.from(value), headers: [] };
}

export interface ChunkShape {
  readonly of?: Assignment;
  /** Offsets of the range that no record has. */
  readonly holes?: readonly number[];
}

/** Covers `(afterOffset, lastOffset]`. */
export function chunk(
  afterOffset: number,
  lastOffset: number,
  { of: assignment = p0, holes = [] }: ChunkShape = {},
): Chunk & BufferedBatch {
  const offsets = Array.from({ length: lastOffset - afterOffset }, (_, i) => afterOffset + 1 + i);
  const records = offsets.filter((offset) => !holes.includes(offset)).map((offset) => record(offset));
  return {
    assignment,
    afterOffset,
    lastOffset,
    records,
    bytes: bytesOf(records),
    highWatermark: lastOffset + 1,
  } as Chunk as Chunk & BufferedBatch;
}

export function insertBatch(
  afterOffset: number,
  lastOffset: number,
  fields: Partial<InsertBatch> & ChunkShape = {},
): RecordedBatch {
  const { of: tenureOf = p0, holes = [], ...rest } = fields;
  const { assignment, records, bytes } = chunk(afterOffset, lastOffset, { of: tenureOf, holes });
  return {
    assignment,
    afterOffset,
    lastOffset,
    records,
    bytes,
    intent: undefined,
    token: undefined,
    replay: false,
    ...rest,
  } as RecordedBatch;
}

/** As reconcileWithState gives it: the ledger that has its range goes along. */
export function recordedBy(ledger: PartitionLedger, batch: InsertBatch): RecordedBatch {
  return { ...batch, ledger } as InsertBatch as RecordedBatch;
}

/** As if it were recorded, where no ledger is asked. */
export function asRecorded(batch: InsertBatch): RecordedBatch {
  return batch as RecordedBatch;
}

/** As commit gives it, before the insert. */
export function committed(batch: Batch): CommittedBatch {
  return { ...batch, isCommitted: true } as Batch as CommittedBatch;
}

/** A handle without chunks. */
export function handleOf(source: Parameters<typeof partitionOf>[0], assignment: Assignment = p0): Partition {
  return partitionOf(source, assignment, NEVER);
}

export function intent(first: number, last: number, fields: Partial<Intent> = {}): Intent {
  return {
    first,
    last,
    rows: last - first + 1,
    atMs: 0,
    settings: 's1',
    tables: ['db.clicks'],
    excluded: [],
    ...fields,
  };
}

/** `settled` of -1: nothing was ever settled. */
export function stateOf(
  settled: number,
  ...pending: readonly (readonly [first: number, last: number])[]
): PartitionState {
  return {
    ...emptyState,
    settled: settled < 0 ? undefined : settled,
    pending: pending.map(([first, last]) => intent(first, last)),
  };
}

// --- values as text

export function range({
  afterOffset,
  lastOffset,
}: {
  readonly afterOffset: number;
  readonly lastOffset: number;
}): string {
  return afterOffset + 1 === lastOffset ? `${lastOffset}` : `${afterOffset + 1}-${lastOffset}`;
}

/** `replay 10-14`, `insert 15-19`, `skip 0-9`. */
export function briefBatch(batch: InsertBatch): string {
  const kind = batch.replay ? 'replay' : batch.intent === undefined ? 'skip' : 'insert';
  return `${kind} ${range(batch)}`;
}

/** `delivered 10-14`, `delivered 10-14 again` after a replay. */
export function briefDelivered(delivered: Pick<Delivered, 'afterOffset' | 'lastOffset' | 'replay'>): string {
  return `delivered ${range(delivered)}${delivered.replay ? ' again' : ''}`;
}

/** `settled 9, in doubt 10-14 15-19`. */
export function briefState({ settled, pending }: PartitionState): string {
  const inDoubt = pending.map(({ first, last }) => `${first}-${last}`).join(' ');
  return `settled ${settled ?? 'none'}${inDoubt === '' ? '' : `, in doubt ${inDoubt}`}`;
}

// --- scripts

/** The letters a script may end with; each port adds its own `k`, its success. */
const endings: Readonly<Record<string, ErrorCode>> = {
  u: 'KCR_STORE_UNREACHABLE',
  s: 'KCR_STORE',
  x: 'KCR_FENCED',
  t: 'KCR_INSERT_RETRIABLE',
  d: 'KCR_INSERT_IN_DOUBT',
  p: 'KCR_POISON',
  f: 'KCR_INSERT_FATAL',
  v: 'KCR_READ_BACK',
  c: 'KCR_CLICKHOUSE_UNREACHABLE',
  e: 'KCR_KAFKA',
  b: 'KCR_KAFKA_UNREACHABLE',
};

export function failure(code: ErrorCode, fields: ErrorFields = {}): IngestError {
  return new IngestError(code, `scripted ${code}`, fields);
}

/** Waits as long as the script says, then calls `succeed` or fails. */
function play<T>(script: string, succeed: () => T): Observable<T> {
  const letter = script.at(-1) ?? 'k';
  if (letter === '-') return NEVER;
  const answer$ = defer((): Observable<T> => {
    if (letter === '|') return EMPTY;
    const code = endings[letter];
    if (code !== undefined) return throwError(() => failure(code));
    if (letter !== 'k') throw new Error(`no script ends with ${letter}: ${script}`);
    return of(succeed());
  });
  return script.length === 1 ? answer$ : timer(script.length - 1).pipe(concatMap(() => answer$));
}

/** Scripts by call, such as `write`, `commit` or `insert 10-14`. A call without one succeeds at once. */
export type Scripts = Readonly<Record<string, string | readonly string[]>>;

class Player {
  readonly #scripts: Scripts;
  readonly #played = new Map<string, number>();

  constructor(scripts: Scripts) {
    this.#scripts = scripts;
  }

  play<T>(name: string, succeed: () => T): Observable<T> {
    const script = this.#scripts[name] ?? 'k';
    const list = typeof script === 'string' ? [script] : script;
    const at = this.#played.get(name) ?? 0;
    this.#played.set(name, at + 1);
    return play(list[Math.min(at, list.length - 1)] ?? 'k', succeed);
  }
}

/** What was called, each line with the frame at which it was. */
export class Journal {
  readonly lines: string[] = [];

  note(line: string): void {
    this.lines.push(`${asyncScheduler.now()} ${line}`);
  }

  /** Notes a call when it is made, and `… dropped` when it is unsubscribed before it answered. */
  call<T>(line: string, answer$: Observable<T>): Observable<T> {
    return defer(() => {
      this.note(line);
      let isAnswered = false;
      const answered = () => void (isAnswered = true);
      return answer$.pipe(
        tap({ next: answered, error: answered }),
        finalize(() => {
          if (!isAnswered) this.note(`${line} dropped`);
        }),
      );
    });
  }

  /** The lines about some calls: `of('insert', 'commit')`. */
  of(...names: readonly string[]): string[] {
    return this.lines.filter((line) => names.some((name) => line.split(' ')[1] === name));
  }
}

export function reportTo(journal: Journal): (event: IngestEvent) => void {
  return (event) => journal.note(`event ${event.kind}`);
}

// --- ports

/** Calls: `cluster`, `log`, `seek`, `commit`, `commitOnce`. */
export class FakeSource implements GroupSource {
  readonly #player: Player;

  constructor(
    readonly journal: Journal,
    readonly events: Observable<SourceEvent> = NEVER,
    scripts: Scripts = {},
  ) {
    this.#player = new Player(scripts);
  }

  cluster(): Observable<string> {
    return defer(() => this.#player.play('cluster', () => 'c1'));
  }

  /** What every partition's log holds. */
  ends: LogEnds = { start: 0, end: 1_000_000 };

  /** Not noted: it is asked once for each claim. */
  log(): Observable<LogEnds> {
    return defer(() => this.#player.play('log', () => this.ends));
  }

  seek({ partition }: Assignment, offset: number): Observable<void> {
    return this.journal.call(
      `seek ${partition}:${offset}`,
      defer(() => this.#player.play('seek', () => undefined)),
    );
  }

  /** Of each claim it was told of: up to which offset there was something in doubt. */
  readonly claims: (number | undefined)[] = [];

  claimed(_: Assignment, inDoubtUpTo: number | undefined): void {
    this.claims.push(inDoubtUpTo);
  }

  commit({ partition }: Assignment, nextOffset: number): Observable<void> {
    return this.journal.call(
      `commit ${partition}:${nextOffset}`,
      defer(() => this.#player.play('commit', () => undefined)),
    );
  }

  commitOnce({ partition }: Assignment, nextOffset: number): Observable<void> {
    return this.journal.call(
      `commitOnce ${partition}:${nextOffset}`,
      defer(() => this.#player.play('commitOnce', () => undefined)),
    );
  }

  done({ partition }: Assignment, lastOffset: number): void {
    this.journal.note(`done ${partition}:${lastOffset}`);
  }

  halt({ partition }: Assignment): void {
    this.journal.note(`halt ${partition}`);
  }

  reassign({ partition }: Assignment, afterMs?: number): void {
    this.journal.note(`reassign ${partition}${afterMs === undefined ? '' : ` after ${afterMs}`}`);
  }

  pause(): void {}
  resume(): void {}
  drain(): void {}
}

interface Kept {
  readonly state: PartitionState;
  readonly owner: string;
  readonly version: number;
}

/** One value a partition, by compare-and-set. Calls: `claim`, `write`. A call takes effect when it answers. */
export class FakeStore implements StateStore {
  readonly name = 'fake';
  readonly #player: Player;
  readonly #kept = new Map<number, Kept>();

  constructor(
    readonly journal: Journal,
    readonly initial: PartitionState = emptyState,
    scripts: Scripts = {},
  ) {
    this.#player = new Player(scripts);
  }

  claim(key: StateKey, owner: string): Observable<Claim> {
    return this.journal.call(
      `claim ${key.partition}`,
      defer(() => this.#player.play('claim', () => this.#put(key, owner, this.#of(key.partition).state))),
    );
  }

  write(claim: Claim, state: PartitionState): Observable<Claim> {
    const { key, owner, version } = claim;
    return this.journal.call(
      `write ${key.partition}: ${briefState(state)}`,
      defer(() =>
        this.#player.play('write', () => {
          if (version !== this.#of(key.partition).version) throw failure('KCR_FENCED');
          return this.#put(key, owner, state);
        }),
      ),
    );
  }

  read({ partition }: StateKey): Observable<Stored> {
    return defer(() => of(this.#of(partition)));
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  stateOf(partition = 0): PartitionState {
    return this.#of(partition).state;
  }

  /** Another process claims the partition. */
  seize(partition = 0): void {
    this.#put({ cluster: 'c1', group: 'g1', topic: 'clicks', partition }, 'somebody else', this.#of(partition).state);
  }

  #of(partition: number): Kept {
    return this.#kept.get(partition) ?? { state: this.initial, owner: '', version: 0 };
  }

  #put(key: StateKey, owner: string, state: PartitionState): Claim {
    const version = this.#of(key.partition).version + 1;
    this.#kept.set(key.partition, { state, owner, version });
    return { key, owner, state, version };
  }
}

export interface FakeSinkConfig {
  readonly readBackWhenInDoubt?: boolean;
  /** Why the table must be asked before an attempt, or what tells it of a batch at a time. */
  readonly tokenDoubt?: string | ((batch: InsertBatch, nowMs: number) => string | undefined);
  /** Answers to `readBack`, one after the other; then nothing is missing. */
  readonly readBacks?: readonly Partial<ReadBack>[];
  /** Freezing a batch with one of these offsets fails. */
  readonly poison?: number | readonly number[];
  /** Inserting a batch with one of these offsets fails, and names the first of them. */
  readonly refuses?: readonly number[];
  /** Freezing a batch of more rows fails; of one record of more rows it is poison. @default any number */
  readonly blockRows?: number;
  /** Of a replay: for how long an attempt may land. @default none was ever sent */
  readonly mayLandForMs?: number;
  /** What an insert of these offsets fails with, the `attempt`th of all, from 1; undefined: it is taken. */
  readonly refusal?: (offsets: readonly number[], attempt: number) => IngestError | undefined;
}

/**
 * Calls: `insert 10-14`, `readBack 10-14`, `fill 10-14`; partition 1's are `insert p1:10-14`. They are noted with what
 * the batch is without, and why it is read back: `insert 10-14 without 12`, `readBack 10-14 since it is old`.
 */
export class FakeSink implements PreparingSink {
  readonly #player: Player;
  readonly #readBacks: Partial<ReadBack>[];
  #attempts = 0;
  /** Of every insert, in order. */
  readonly tokens: (string | undefined)[] = [];

  constructor(
    readonly journal: Journal,
    scripts: Scripts = {},
    readonly config: FakeSinkConfig = {},
  ) {
    this.#player = new Player(scripts);
    this.#readBacks = [...(config.readBacks ?? [])];
  }

  prepare(batch: InsertBatch): PreparedInsert {
    const { readBackWhenInDoubt = false, poison = [], tokenDoubt, refuses = [] } = this.config;
    const offsetIn = (offsets: readonly number[]) =>
      batch.records.find(({ offset }) => offsets.includes(offset))?.offset;
    const unfit = offsetIn(typeof poison === 'number' ? [poison] : poison);
    if (unfit !== undefined) throw failure('KCR_POISON', { offset: unfit });
    this.#expectFit(batch);
    const where = batch.assignment.partition === 0 ? range(batch) : `p${batch.assignment.partition}:${range(batch)}`;
    const { excluded = [] } = batch.intent ?? {};
    const without = excluded.length === 0 ? '' : ` without ${excluded.join(',')}`;
    const call = <T>(name: string, more: string, succeed: () => T): Observable<T> =>
      this.journal.call(
        `${name} ${where}${without}${more}`,
        defer(() => this.#player.play(`${name} ${where}`, succeed)),
      );
    const result = (rows: number): InsertResult => ({ rows, bytes: 10 * rows });
    const insert = (): InsertResult => {
      this.#attempts += 1;
      const refusal = this.config.refusal?.(
        [...batch.records].map(({ offset }) => offset),
        this.#attempts,
      );
      if (refusal !== undefined) throw refusal;
      const refused = offsetIn(refuses);
      if (refused !== undefined) throw failure('KCR_POISON', { offset: refused });
      this.tokens.push(batch.token);
      return result(batch.records.length);
    };
    return {
      tokenDoubt: (nowMs) => (typeof tokenDoubt === 'function' ? tokenDoubt(batch, nowMs) : tokenDoubt),
      readBackWhenInDoubt,
      insert: () => call('insert', '', insert),
      insertMissing: (missing) =>
        call('insert', ` with ${missing.join(',')}`, () => (this.tokens.push(batch.token), result(missing.length))),
      readBack: (why) =>
        call('readBack', why === undefined ? '' : ` since ${why}`, () => ({
          missing: [],
          doubled: [],
          ...this.#readBacks.shift(),
        })),
      fill: (missing) => call('fill', ` with ${missing.join(',')}`, () => result(missing.length)),
      release: () => this.journal.note(`release ${where}${without}`),
    };
  }

  #expectFit({ records, replay }: InsertBatch): void {
    const { blockRows = Infinity, mayLandForMs } = this.config;
    if (records.length <= blockRows) return;
    const fit = fitOf(records, { rows: blockRows, bytes: Infinity });
    if (fit.kind === 'record') throw failure('KCR_POISON', { offset: fit.offset });
    throw failure('KCR_CONFIG', { oversized: { cuts: fit.cuts, mayLandForMs: replay ? mayLandForMs : undefined } });
  }

  describe(): { readonly tables: readonly string[]; readonly settings: string } {
    return { tables: ['db.clicks'], settings: 's1' };
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

// --- events of a source

export const assigned = (assignment: Assignment): SourceEvent => ({ kind: 'assigned', assignment });
export const lost = (assignment: Assignment): SourceEvent => ({ kind: 'lost', assignment });
export const failed = (assignment: Assignment, error: IngestError): SourceEvent => ({
  kind: 'failed',
  assignment,
  error,
});
export const fetched = (batch: Chunk): SourceEvent => ({ kind: 'fetched', assignment: batch.assignment, chunk: batch });
export const revoked = (assignment: Assignment, release: () => void = () => undefined): SourceEvent => ({
  kind: 'revoked',
  assignment,
  release,
});

/** `assigned of 0@1`, `10-14 of 0@1`: what, of which partition and epoch. */
export function briefEvent(event: SourceEvent): string {
  const { partition, assignmentId } = event.assignment;
  const what = event.kind === 'fetched' ? range(event.chunk) : event.kind;
  return `${what} of ${partition}@${assignmentId}`;
}
