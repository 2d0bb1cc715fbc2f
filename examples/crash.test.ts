// One's own pipeline, with its transform, tested for exactly-once after a crash: the process dies when its second insert
// has taken effect but was not answered; the next one reads the topic in other cuts.
import { exactlyOnce } from 'kafka-clickhouse-rx';
import { transformRows } from 'kafka-clickhouse-rx/operators';
import { SimulatedWorld, checkExactlyOnce, type Process } from 'kafka-clickhouse-rx/testing';
import { concat, filter, map } from 'rxjs';
import { configure } from 'rxjs-marbles';
import { expect, test } from 'vitest';

const { marbles } = configure({
  run: true,
  frameworkMatcher: true,
  assertDeepEqual: (a: unknown, e: unknown) => expect(a).toStrictEqual(e),
});

const pipeline = ({ source, store, sink, name }: Process) =>
  exactlyOnce(source, sink, store, {
    group: 'g',
    owner: name,
    batch: { count: 4, maxWaitMs: 10 },
    transform: () => transformRows(({ offset }) => (offset % 2 === 0 ? { twice: 2 * offset } : null)),
  }).pipe(
    filter((outcome) => outcome.kind === 'delivered' && outcome.rows > 0),
    map((outcome) => (outcome.kind === 'delivered' ? `up to ${outcome.lastOffset}` : outcome.kind)),
  );

test(
  'a crash between the insert and its answer',
  marbles((m) => {
    const world = new SimulatedWorld({ partitions: [10], rowsOf: ({ offset }) => (offset % 2 === 0 ? 1 : 0) });
    const dying = world.live(pipeline, { chunkSize: 4, faults: [{ port: 'insert', nth: 2, fate: 'die after' }] });
    const next = world.live(pipeline, { chunkSize: 10 });
    m.expect(concat(dying, next)).toBeObservable('82ms a 7ms b', { a: 'up to 7', b: 'up to 9' });
    m.flush();
    expect(checkExactlyOnce(world)).toEqual({ missing: [], doubled: [], refused: [], views: {} });
    expect(world.violations).toEqual([]);
  }),
);
