// One's own operators between the stages that drop a batch, or throw: whichever the pipeline, and whichever the partition,
// it halts at once with what the operator did.
import { VirtualAction, VirtualTimeScheduler, filter, map, type MonoTypeOperatorFunction, type Observable } from 'rxjs';
import { describe, expect, test } from 'vitest';
import {
  bufferCountOrTime,
  commit,
  consume,
  groupByPartition,
  insertDeduped,
  reconcileWithState,
} from '../../operators/index.js';
import type { Halted, Outcome } from '../../src/events.js';
import { Ledger } from '../../src/ledger.js';
import type { Batch } from '../../src/model/record.js';
import { atLeastOnce } from '../../src/pipeline/at-least-once.js';
import { atMostOnce } from '../../src/pipeline/at-most-once.js';
import { exactlyOnce } from '../../src/pipeline/exactly-once.js';
import { SimulatedWorld, checkExactlyOnce, type Process } from '../../src/testing/index.js';

type Own = <B extends Batch>() => MonoTypeOperatorFunction<B>;
type Pipeline = (process: Process, own: Own) => Observable<Outcome>;

const batch = { count: 3, maxWaitMs: 5 };
const ledgerOf = ({ store, source, name, scheduler }: Process) =>
  new Ledger(store, source, { group: 'g', owner: name, scheduler });

const pipelines: Readonly<Record<string, Pipeline>> = {
  atMostOnce: ({ source, sink, scheduler }, own) =>
    atMostOnce(source, sink, { batch, scheduler, transform: () => own() }),
  atLeastOnce: ({ source, sink, scheduler }, own) =>
    atLeastOnce(source, sink, { batch, scheduler, transform: () => own() }),
  exactlyOnce: ({ source, sink, store, name, scheduler }, own) =>
    exactlyOnce(source, sink, store, { batch, scheduler, group: 'g', owner: name, transform: () => own() }),
};

const byHand: Readonly<Record<string, Pipeline>> = {
  'at-most-once': ({ source, sink, scheduler }, own) =>
    consume(source).pipe(
      groupByPartition(source, (p) =>
        p.chunks.pipe(
          bufferCountOrTime({ ...batch, scheduler }),
          commit(p, { scheduler }),
          own(),
          insertDeduped(sink, { scheduler }),
        ),
      ),
    ),
  'at-least-once': ({ source, sink, scheduler }, own) =>
    consume(source).pipe(
      groupByPartition(source, (p) =>
        p.chunks.pipe(
          bufferCountOrTime({ ...batch, scheduler }),
          own(),
          insertDeduped(sink, { scheduler }),
          commit(p, { scheduler }),
        ),
      ),
    ),
  'exactly-once': (process, own) => {
    const { source, sink, scheduler } = process;
    const ledger = ledgerOf(process);
    return consume(source).pipe(
      groupByPartition(source, (p) =>
        p.chunks.pipe(
          bufferCountOrTime({ ...batch, scheduler }),
          reconcileWithState(p, ledger, sink, { scheduler }),
          own(),
          insertDeduped(sink, { scheduler }),
          commit(p, ledger),
        ),
      ),
    );
  },
  'exactly-once, before reconcile': (process, own) => {
    const { source, sink, scheduler } = process;
    const ledger = ledgerOf(process);
    return consume(source).pipe(
      groupByPartition(source, (p) =>
        p.chunks.pipe(
          bufferCountOrTime({ ...batch, scheduler }),
          own(),
          reconcileWithState(p, ledger, sink, { scheduler, onGap: 'continue' }),
          insertDeduped(sink, { scheduler }),
          commit(p, ledger),
        ),
      ),
    );
  },
};

function halts(
  pipeline: Pipeline,
  own: Own,
  partitions = [12, 12],
): { readonly halted: readonly Halted[]; readonly world: SimulatedWorld } {
  const clock = new VirtualTimeScheduler(VirtualAction, 60_000);
  const world = new SimulatedWorld({ scheduler: clock, partitions });
  const halted: Halted[] = [];
  const living = world
    .live((process) => pipeline(process, own))
    .subscribe((outcome) => void (outcome.kind === 'halted' && halted.push(outcome)));
  clock.flush();
  living.unsubscribe();
  return { halted, world };
}

const brief = (halted: readonly Halted[]) =>
  halted.map(
    ({
      error: {
        code,
        fields: { partition, first, last },
      },
    }) => `${code} ${partition}:${first}-${last}`,
  );

for (const partition of [0, 1]) {
  const isIt = ({ assignment, afterOffset }: Batch, from: number) =>
    assignment.partition === partition && afterOffset >= from - 1;

  describe(`in partition ${partition}`, () => {
    for (const [name, pipeline] of Object.entries(pipelines)) {
      test(`H1: ${name}: a filter that drops the last batch halts the partition at once, though nothing comes behind it`, () => {
        const { halted, world } = halts(pipeline, () => filter((one) => !isIt(one, 9)));
        expect(brief(halted)).toEqual([`KCR_TRANSFORM ${partition}:9-11`]);
        expect(halted[0]!.error.message).toContain('let a batch go');
        expect(world.group.committed.get(partition)).toBe(name === 'atMostOnce' ? 12 : 9);
      });

      test(`H1: ${name}: a filter that drops all of them`, () => {
        expect(brief(halts(pipeline, () => filter((one) => !isIt(one, 0))).halted)).toEqual([
          `KCR_TRANSFORM ${partition}:0-2`,
        ]);
      });

      test(`H2: ${name}: an operator that throws is told with the range, and what was before it is delivered`, () => {
        const { halted, world } = halts(pipeline, () =>
          map((one) => {
            if (isIt(one, 6)) throw new TypeError('no such field');
            return one;
          }),
        );
        expect(brief(halted)).toEqual([`KCR_TRANSFORM ${partition}:6-8`]);
        expect(halted[0]!.error.message).toContain('no such field');
        expect(halted[0]!.error.fields.topic).toBe('simulated');
        expect(checkExactlyOnce(world).doubled).toEqual([]);
        expect(
          [0, 1, 2, 3, 4, 5].every((offset) =>
            world.table.rows.some((row) => row.partition === partition && row.offset === offset),
          ),
        ).toBe(true);
      });
    }

    for (const [name, pipeline] of Object.entries(byHand)) {
      test(`H1: by hand, ${name}: a filter that drops a batch halts the partition when the next one comes`, () => {
        const { halted, world } = halts(pipeline, () => filter((one) => !(isIt(one, 3) && one.lastOffset === 5)));
        expect(brief(halted)).toEqual([`KCR_TRANSFORM ${partition}:3-5`]);
        expect(halted[0]!.error.message).toContain('One of your operators let a batch go');
        // Before reconcile what waits for the claim is discarded, too.
        const rows = world.table.rows.filter((row) => row.partition === partition).map(({ offset }) => offset);
        expect(rows).toEqual(name.endsWith('before reconcile') ? [] : [0, 1, 2]);
      });

      test(`H1: by hand, ${name}: the first batch`, () => {
        expect(brief(halts(pipeline, () => filter((one) => !(isIt(one, 0) && one.lastOffset === 2))).halted)).toEqual([
          `KCR_TRANSFORM ${partition}:0-2`,
        ]);
      });

      test(`H2: by hand, ${name}: an operator that throws is told with what was under way`, () => {
        const { halted } = halts(pipeline, () =>
          map((one) => {
            if (isIt(one, 6)) throw new TypeError('no such field');
            return one;
          }),
        );
        expect(halted.map(({ error }) => [error.code, error.fields.partition, error.fields.first])).toEqual([
          ['KCR_TRANSFORM', partition, expect.any(Number)],
        ]);
        expect(halted[0]!.error.fields.first).toBeLessThanOrEqual(6);
        expect(halted[0]!.error.fields.last).toBeGreaterThanOrEqual(8);
        expect(halted[0]!.error.message).toContain('no such field');
      });
    }
  });
}

test('by hand: a range that was changed behind its back is told, where the types were talked out of it', () => {
  const shifted: Own = () => map((one) => (one.afterOffset >= 2 ? { ...one, lastOffset: one.lastOffset - 1 } : one));
  const { halted } = halts(byHand['exactly-once']!, shifted, [12]);
  expect(brief(halted)).toEqual(['KCR_TRANSFORM 0:3-5']);
  expect(halted[0]!.error.message).toContain('made 3-4 of a batch');
});
