/**
 * A helper of the stages. One's own operators may stand between the stages, and may neither drop
 * a batch nor change its range: types see the second, this sees both. Imports: errors, ledger, model, rxjs, stages.
 */
import { EMPTY, concat, defer, map, throwError, type MonoTypeOperatorFunction, type Observable } from 'rxjs';
import { IngestError } from '../../src/errors.js';
import type { Assignment } from '../../src/model/record.js';
import type { Intent } from '../../src/model/state.js';
import type { PartitionLedger } from '../../src/ledger.js';
import type { Cut } from '../../src/stages.js';

interface Followed {
  readonly assignment: Assignment;
  readonly afterOffset: number;
  readonly lastOffset: number;
  readonly cut?: Cut;
  readonly intent?: Intent | undefined;
  readonly ledger?: Pick<PartitionLedger, 'state'>;
}

/**
 * Lets batches pass as long as each is the one that was made behind the last, with the range that was given to it.
 *
 * A dropped batch is seen when the next one comes, and of recorded ranges at the latest when the source completes. Not
 * before: until then an operator that drops a batch looks like one that still holds it, as any that waits for something
 * does.
 */
export function unbroken<B extends Followed>(): MonoTypeOperatorFunction<B> {
  return (batches) =>
    defer(() => {
      let last: number | undefined;
      let latest: Followed | undefined;
      const following$ = batches.pipe(
        map((batch) => {
          expectOwnRange(batch);
          latest = batch;
          const follows = followsOf(batch);
          if (follows === 'unknown') return batch;
          const expected = last ?? oldestInDoubt(batch);
          if (follows !== expected) throw dropped(batch, follows, expected);
          last = batch.lastOffset;
          return batch;
        }),
      );
      return concat(
        following$,
        defer(() => (latest === undefined ? EMPTY : expectNoneBehind(latest))),
      );
    });
}

/**
 * Whoever recorded ranges has let all of them go on before it completes: what is in doubt behind the latest did not
 * come.
 */
function expectNoneBehind(latest: Followed): Observable<never> {
  const behind = latest.ledger?.state.pending.filter(({ first }) => first > latest.lastOffset).at(-1);
  if (behind === undefined) return EMPTY;
  return throwError(() => notCome(latest, latest.lastOffset + 1, behind.last, 'let a batch go: the source ended,'));
}

/**
 * Where the one before it ended; undefined: it is the first; unknown: nothing tells, nor does it tell of the next one.
 */
function followsOf({ cut, intent, ledger }: Followed): number | 'unknown' | undefined {
  if (cut !== undefined) return cut.follows;
  return intent === undefined || ledger === undefined ? 'unknown' : intent.first - 1;
}

/** Of what is recorded the oldest in doubt comes first. */
function oldestInDoubt({ intent, ledger }: Followed): number | undefined {
  if (intent === undefined || ledger === undefined) return undefined;
  return Math.min(ledger.state.pending[0]?.first ?? intent.first, intent.first) - 1;
}

function expectOwnRange({ assignment, afterOffset, lastOffset, intent }: Followed): void {
  if (intent === undefined || (intent.first === afterOffset + 1 && intent.last === lastOffset)) return;
  const { topic, partition } = assignment;
  throw new IngestError(
    'KCR_TRANSFORM',
    `One of your operators made ${afterOffset + 1}-${lastOffset} of a batch whose range was recorded`,
    {
      topic,
      partition,
      first: intent.first,
      last: intent.last,
      hint: 'keep the range and change the records only: { ...batch, records }',
    },
  );
}

function dropped(batch: Followed, follows: number | undefined, expected: number | undefined): IngestError {
  if (follows !== undefined && follows > (expected ?? -1))
    return notCome(batch, (expected ?? -1) + 1, follows, 'let a batch go: the one behind it came,');
  return misplaced(
    batch,
    batch.afterOffset + 1,
    batch.lastOffset,
    'gave a batch twice, or took batches out of their order',
  );
}

function notCome(batch: Followed, first: number, last: number, what: string): IngestError {
  return misplaced(batch, first, last, `${what} that of ${first}-${last} did not`);
}

function misplaced(
  { assignment: { topic, partition } }: Followed,
  first: number,
  last: number,
  what: string,
): IngestError {
  return new IngestError('KCR_TRANSFORM', `One of your operators ${what}`, {
    topic,
    partition,
    first,
    last,
    hint:
      'a batch without rows must pass too, so that its range is settled: leave records out with ' +
      'transformRows, which may give null, or pass { ...batch, records: [] }',
  });
}
