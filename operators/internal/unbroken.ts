/**
 * A helper of the stages. Imports: errors, stages. One's own operators may stand between the stages, and may neither drop
 * a batch nor change its range: types see the second, this sees both.
 */
import { defer, map, type MonoTypeOperatorFunction } from 'rxjs';
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

/** Lets batches pass as long as each is the one that was made behind the last, with the range that was given to it. */
export function unbroken<B extends Followed>(): MonoTypeOperatorFunction<B> {
  return (batches) =>
    defer(() => {
      let last: number | undefined;
      return batches.pipe(
        map((batch) => {
          expectOwnRange(batch);
          const follows = followsOf(batch);
          if (follows === 'unknown') return batch;
          const expected = last ?? oldestInDoubt(batch);
          if (follows !== expected) throw dropped(batch, follows, expected);
          last = batch.lastOffset;
          return batch;
        }),
      );
    });
}

/** Where the one before it ended; undefined: it is the first; unknown: nothing tells, nor does it tell of the next one. */
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

function dropped(
  { assignment: { topic, partition }, afterOffset, lastOffset }: Followed,
  follows: number | undefined,
  expected: number | undefined,
): IngestError {
  const isBehind = follows !== undefined && follows > (expected ?? -1);
  const [first, last] = isBehind ? [(expected ?? -1) + 1, follows] : [afterOffset + 1, lastOffset];
  const what = isBehind
    ? `let a batch go: the one behind it came, that of ${first}-${last} did not`
    : 'gave a batch twice, or took batches out of their order';
  return new IngestError('KCR_TRANSFORM', `One of your operators ${what}`, {
    topic,
    partition,
    first,
    last,
    hint: 'a batch without rows must pass too, so that its range is settled: leave records out with transformRows, which may give null, or pass { ...batch, records: [] }',
  });
}
