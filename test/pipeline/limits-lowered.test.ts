// Limits that are lowered between two lives: what was recorded under the larger ones is still in doubt.
import { VirtualAction, VirtualTimeScheduler, concat, type Observable } from 'rxjs';
import { describe, expect, test } from 'vitest';
import { exactlyOnce } from '../../src/pipeline/exactly-once.js';
import type { BufferConfig } from '../../operators/buffer-count-or-time.js';
import { SimulatedWorld, checkExactlyOnce, type Process } from '../../src/testing/index.js';

const pipeline =
  (maxPending: number, batch: BufferConfig) =>
  ({ source, store, sink, name, scheduler }: Process): Observable<unknown> =>
    exactlyOnce(source, sink, store, {
      group: 'g',
      owner: name,
      batch,
      maxPending,
      retry: { minDelayMs: 3, jitter: 0 },
      scheduler,
    });

const large: BufferConfig = { count: 4, bytes: 10_000, maxWaitMs: 5 };

/** A first life whose inserts land, or not, without an answer, then one with lower limits. */
function lowered(fate: 'lands' | 'is lost', maxPending: number, batch: BufferConfig) {
  const clock = new VirtualTimeScheduler(VirtualAction, 60_000);
  const world = new SimulatedWorld({ scheduler: clock, partitions: [14] });
  const inDoubt: number[] = [];
  const noted = (process: Process): Observable<unknown> => {
    inDoubt.push(
      ...[...world.nodes.values()].map(
        ({ text }) => (JSON.parse(text) as { pending: readonly unknown[] }).pending.length,
      ),
    );
    return pipeline(maxPending, batch)(process);
  };
  const faults = [1, 2].map((nth) => ({
    port: 'insert' as const,
    nth,
    fate: fate === 'lands' ? { delayMs: 200 } : { failWith: 'KCR_INSERT_RETRIABLE' as const },
  }));
  concat(
    world.live(pipeline(3, large), {
      chunkSize: 4,
      faults: [...faults, { port: 'insert', nth: 3, fate: 'die before' }],
    }),
    world.live(noted),
  ).subscribe();
  clock.flush();
  return {
    inDoubt,
    verdict: checkExactlyOnce(world),
    violations: world.violations,
    settled: [...world.nodes.values()].map(({ text }) => (JSON.parse(text) as { settled: number }).settled),
  };
}

describe('I8: ranges in doubt are replayed as they were recorded, though less is allowed now', () => {
  const limits: readonly (readonly [what: string, maxPending: number, batch: BufferConfig])[] = [
    ['fewer ranges in doubt', 1, large],
    ['fewer records a batch', 3, { ...large, count: 1 }],
    ['fewer bytes a batch', 3, { ...large, bytes: 1 }],
    ['less of everything', 1, { count: 1, bytes: 1, maxWaitMs: 1 }],
  ];
  for (const fate of ['lands', 'is lost'] as const) {
    test.each(limits)(`%s, and what was under way ${fate}`, (_, maxPending, batch) => {
      const { inDoubt, verdict, violations, settled } = lowered(fate, maxPending, batch);
      expect(inDoubt).toEqual([3]);
      expect({ verdict, violations, settled }).toEqual({
        verdict: { missing: [], doubled: [], refused: [], views: {} },
        violations: [],
        settled: [13],
      });
    });
  }
});
