// ingest over ports of one's own, and its valve. Nothing of it needs a server.
import { NEVER, Subject, lastValueFrom, of, tap, toArray } from 'rxjs';
import { describe, expect, test, vi } from 'vitest';
import type { IngestConfig } from '../../src/config/config.js';
import { fromRecords } from '../../src/from-records.js';
import { toReadable } from '../../src/node-streams.js';
import { ingest } from '../../src/pipeline/ingest.js';
import type { BatchSink, InsertBatch, SeekableSource, VerifiableSink } from '../../src/ports.js';
import { memoryStore } from '../../src/state/memory.js';

/** Keeps what it is given, by token. */
function keeping() {
  const kept = new Map<string, InsertBatch>();
  const sink: VerifiableSink = {
    insert: (batch) => (
      kept.set(batch.token ?? `${batch.lastOffset}`, batch),
      of({ rows: batch.records.length, bytes: batch.bytes })
    ),
    verification: {
      look: ({ token, records }) =>
        of({ missing: kept.has(token ?? '') ? [] : records.map(({ offset }) => offset), doubled: [] }),
    },
  };
  return { sink, values: () => [...kept.values()].flatMap(({ records }) => records.map(({ value }) => String(value))) };
}

const clicks = of(...Array.from({ length: 7 }, (_, n) => ({ value: `{"n":${n}}` })));
const config = {
  kafka: { groupId: 'g' },
  delivery: 'exactly-once',
  routes: [{ topic: 'clicks' }],
  batch: { count: 3, maxWaitMs: 5 },
} as const;

describe('ingest over ports of one’s own', () => {
  test('takes them in place of what the configuration would name, and asks no server for anything', async () => {
    const { sink, values } = keeping();
    const ports = { source: fromRecords(clicks, { topic: 'clicks' }), sink, store: memoryStore() };
    const outcomes = await lastValueFrom(ingest(ports, config).pipe(toArray()));
    expect(outcomes.map((one) => (one.kind === 'delivered' ? one.rows : one.error.message))).toEqual([3, 3, 1]);
    expect(values()).toHaveLength(7);
  });

  test('runs the transforms of its routes', async () => {
    const { sink, values } = keeping();
    const routes = [
      {
        topic: 'clicks',
        transform: ({ offset }: { readonly offset: number }) => (offset % 2 === 0 ? { even: offset } : null),
      },
    ];
    await lastValueFrom(
      ingest({ source: fromRecords(clicks, { topic: 'clicks' }), sink, store: memoryStore() }, { ...config, routes }),
    );
    expect(values()).toEqual(['{"even":0}', '{"even":2}', '{"even":4}', '{"even":6}']);
  });

  test('a signal drains: what was taken is inserted, then the outcomes complete', async () => {
    const { sink, values } = keeping();
    const stop = new AbortController();
    const records = new Subject<{ value: string }>();
    const source = fromRecords(records, { topic: 'clicks' });
    const running = lastValueFrom(
      ingest(
        { source, sink, store: memoryStore() },
        { ...config, batch: { maxWaitMs: 60_000 } },
        {
          signal: stop.signal,
          onEvent: ({ kind }) =>
            void (kind === 'claimed' && setTimeout(() => (records.next({ value: '{}' }), stop.abort()))),
        },
      ).pipe(toArray()),
    );
    expect(await running).toMatchObject([{ kind: 'delivered', rows: 1 }]);
    expect(values()).toEqual(['{}']);
  });

  test('a port that is not given is checked like any other: nothing is taken when it cannot be had', async () => {
    const { sink } = keeping();
    const source = fromRecords(clicks, { topic: 'clicks' });
    const state = { store: 'keeper', connect: '127.0.0.1:1', sessionTimeoutMs: 1000 } as const;
    await expect(lastValueFrom(ingest({ source, sink }, { ...config, state }))).rejects.toMatchObject({
      code: 'KCR_STORE_UNREACHABLE',
    });
  }, 60_000);

  test('what is wrong with the rest of the configuration is refused at once', () => {
    const { sink } = keeping();
    expect(() => ingest({ sink }, { ...config, kafka: {} as never })).toThrow('kafka.brokers');
    expect(() => ingest({} as IngestConfig)).toThrow('cannot be used');
  });

  test('a state beside the offsets of a group needs a source that is in one', () => {
    const { sink } = keeping();
    const ports = { source: fromRecords(clicks, { topic: 'clicks' }), sink };
    expect(() => ingest(ports, { ...config, state: { store: 'kafka' } })).toThrow('beside the offsets of a group');
  });

  test('at-least-once into a sink that cannot look: an error that is no IngestError is tried again', async () => {
    let attempts = 0;
    const taken: number[] = [];
    const sink: BatchSink = {
      insert: ({ records, lastOffset }) => {
        if (++attempts === 1) throw new TypeError('connection reset');
        taken.push(lastOffset);
        return of({ rows: records.length, bytes: 0 });
      },
    };
    const ports = { source: fromRecords(clicks, { topic: 'clicks' }), sink: sink as VerifiableSink };
    await lastValueFrom(ingest(ports, { ...config, delivery: 'at-least-once' }));
    expect({ attempts, taken: taken.sort() }).toEqual({ attempts: 4, taken: [2, 5, 6] });
  });
});

describe('its valve', () => {
  function valved() {
    const calls: string[] = [];
    const { sink } = keeping();
    const records = new Subject<{ value: string }>();
    const source: SeekableSource = Object.assign(fromRecords(records, { topic: 'clicks' }), {
      pause: () => void calls.push('pause'),
      resume: () => void calls.push('resume'),
    });
    return {
      calls,
      records,
      ingestion: ingest({ source, sink, store: memoryStore() }, { ...config, batch: { count: 1 } }),
    };
  }

  test('pauses and resumes the source while it runs', async () => {
    const { calls, ingestion } = valved();
    const running = ingestion.subscribe();
    await new Promise((resolve) => setTimeout(resolve, 50));
    ingestion.pause();
    ingestion.resume();
    running.unsubscribe();
    ingestion.pause();
    expect(calls).toEqual(['pause', 'resume']);
  });

  test('closed before the start, it begins closed', async () => {
    const { calls, ingestion } = valved();
    ingestion.pause();
    const running = ingestion.subscribe();
    await new Promise((resolve) => setTimeout(resolve, 50));
    running.unsubscribe();
    expect(calls).toEqual(['pause']);
  });

  test('a selection reaches the source as it was said, also one that begins later', async () => {
    const said: unknown[] = [];
    const { sink } = keeping();
    const source: SeekableSource = Object.assign(fromRecords(NEVER, { topic: 'clicks' }), {
      pause: (selection: unknown) => void said.push(['pause', selection]),
      resume: (selection: unknown) => void said.push(['resume', selection]),
    });
    const ingestion = ingest({ source, sink, store: memoryStore() }, config);
    ingestion.pause({ topic: 'clicks' });
    ingestion.resume({ topic: 'clicks', partition: 1 });
    const running = ingestion.subscribe();
    await vi.waitFor(() => expect(ingestion.status().partitions).toHaveLength(1));
    expect(ingestion.status()).toMatchObject({ isPaused: false, partitions: [{ partition: 0, isPaused: true }] });
    ingestion.resume();
    running.unsubscribe();
    expect(said).toEqual([
      ['pause', { topic: 'clicks' }],
      ['resume', { topic: 'clicks', partition: 1 }],
      ['resume', undefined],
    ]);
  });

  test('drained, it delivers what it has taken and completes, as with its signal', async () => {
    const { records, ingestion } = valved();
    const kinds: string[] = [];
    const ended = lastValueFrom(ingestion.pipe(tap(({ kind }) => kinds.push(kind))));
    await vi.waitFor(() => expect(ingestion.status().partitions).toHaveLength(1));
    records.next({ value: '{}' });
    ingestion.drain();
    await ended;
    expect(kinds).toEqual(['delivered']);
    expect(ingestion.status().phase).toBe('over');
  });

  test('drained during the checks before the start, it completes at once', async () => {
    const { ingestion } = valved();
    const ended = lastValueFrom(ingestion, { defaultValue: 'nothing' });
    ingestion.drain();
    expect(await ended).toBe('nothing');
  });

  test('is what a Node stream closes when its reader does not keep up', async () => {
    const { calls, records, ingestion } = valved();
    const readable = toReadable(ingestion, ingestion);
    readable.read();
    await new Promise((resolve) => setTimeout(resolve, 50));
    for (let n = 0; n < 40; n++) records.next({ value: '{}' });
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(calls).toEqual(['pause']);
    while (readable.read() !== null);
    await new Promise((resolve) => setTimeout(resolve, 10));
    expect(calls[1]).toBe('resume');
    readable.destroy();
  });
});
