// With the real SDK: what an exporter of spans and of metrics is given.
import {
  AlwaysOffSampler,
  BasicTracerProvider,
  InMemorySpanExporter,
  SimpleSpanProcessor,
} from '@opentelemetry/sdk-trace-base';
import { MeterProvider, MetricReader, type DataPoint, type Histogram } from '@opentelemetry/sdk-metrics';
import { NEVER, from, of } from 'rxjs';
import { Registry } from 'prom-client';
import { describe, expect, test } from 'vitest';
import { IngestError } from '../../src/errors.js';
import type { KafkaRecord } from '../../src/model/record.js';
import { registerMetrics } from '../../src/observe/metrics.js';
import { observedPorts } from '../../src/observe/observed-ports.js';
import { openTelemetryApi, registerOpenTelemetry } from '../../src/observe/open-telemetry.js';
import { traceParentOf } from '../../src/observe/trace-parent.js';
import type { BatchSink, InsertBatch, RecordSource } from '../../src/ports.js';
import { assignmentOf, ByHand } from './observed.js';

class Reader extends MetricReader {
  protected override onForceFlush = () => Promise.resolve();
  protected override onShutdown = () => Promise.resolve();
}

const trace = (n: number) => n.toString(16).padStart(32, '0');
const parent = (n: number, span = n) => `00-${trace(n)}-${span.toString(16).padStart(16, '0')}-01`;
const record = (offset: number, traceparent?: string): KafkaRecord => ({
  offset,
  timestampMs: 0,
  key: null,
  value: Buffer.from('{"card":"4111"}'),
  headers: traceparent === undefined ? [] : [['traceparent', Buffer.from(traceparent)]],
});

function measured(options: { maxLinks?: number; isSampled?: boolean } = {}) {
  const { maxLinks, isSampled = true } = options;
  const hand = new ByHand().assign(0, 1).logEnds(10, 20);
  const exporter = new InMemorySpanExporter();
  const reader = new Reader();
  const meterProvider = new MeterProvider({ readers: [reader] });
  const tracerProvider = new BasicTracerProvider({
    spanProcessors: [new SimpleSpanProcessor(exporter)],
    ...(isSampled ? {} : { sampler: new AlwaysOffSampler() }),
  });
  const config = maxLinks === undefined ? {} : { maxLinks };
  const stop = registerOpenTelemetry(hand.observed, { meterProvider, tracerProvider, ...config });
  const source: RecordSource = { events: NEVER, commit: () => of(undefined) };
  const hanging: BatchSink = { insert: () => NEVER };
  const { sink } = observedPorts({ source, sink: hanging }, hand.meter);
  const insert = (partition: number, records: readonly KafkaRecord[]) => {
    const lastOffset = records.at(-1)!.offset;
    const afterOffset = records[0]!.offset - 1;
    const assignment = assignmentOf(partition);
    const batch: InsertBatch = {
      assignment,
      afterOffset,
      lastOffset,
      records,
      bytes: 0,
      intent: undefined,
      token: 'kcr2:t',
      replay: false,
    };
    from(sink.insert(batch)).subscribe();
  };
  const metrics = async () => {
    const { resourceMetrics } = await reader.collect();
    const all = resourceMetrics.scopeMetrics.flatMap((scope) => scope.metrics);
    return new Map(all.map((metric) => [metric.descriptor.name, metric.dataPoints as DataPoint<number>[]]));
  };
  return { hand, exporter, stop, insert, metrics, spans: () => exporter.getFinishedSpans() };
}

describe('spans', () => {
  test('a batch is one span, from its insert until it is delivered, linked to the traces of its records', () => {
    const { hand, insert, spans } = measured();
    insert(0, [record(0, parent(1)), record(1, parent(2)), record(2), record(3, parent(1))]);
    expect(spans()).toEqual([]);
    hand.deliver(0, 3, 4);
    const [span, ...more] = spans();
    expect(more).toEqual([]);
    expect(span).toMatchObject({ name: 'insert flights', status: { code: 0 } });
    expect(span!.links.map(({ context }) => context.traceId)).toEqual([trace(1), trace(2)]);
    expect(span!.attributes).toMatchObject({
      'messaging.destination.name': 'flights',
      'messaging.destination.partition.id': '0',
      'messaging.batch.message_count': 4,
      'kcr.offset.first': 0,
      'kcr.offset.last': 3,
      'kcr.token': 'kcr2:t',
      'kcr.rows': 4,
    });
  });

  test('attempts at a batch are events of its one span', () => {
    const { hand, insert, spans } = measured();
    insert(0, [record(0)]);
    const error = new IngestError('KCR_INSERT_IN_DOUBT', 'no answer');
    hand.meter.event({ kind: 'retry', call: 'insert', assignment: assignmentOf(0), attempt: 1, delayMs: 1, error });
    insert(0, [record(0)]);
    hand.deliver(0, 0);
    expect(spans().map(({ events }) => events.map((each) => each.attributes))).toEqual([
      [{ 'kcr.call': 'insert', 'kcr.attempt': 1, 'kcr.code': 'KCR_INSERT_IN_DOUBT' }],
    ]);
  });

  test('a halt ends the spans of its partition with its code, and no value of a record', () => {
    const { hand, insert, spans } = measured();
    insert(0, [record(0)]);
    insert(1, [record(0)]);
    hand.halt(0, new IngestError('KCR_POISON', 'cannot parse {"card":"4111"}'));
    expect(spans().map(({ attributes }) => attributes['messaging.destination.partition.id'])).toEqual(['0']);
    expect(spans()[0]!.status).toEqual({ code: 2, message: 'KCR_POISON' });
    expect(JSON.stringify(spans()[0]!.attributes)).not.toContain('4111');
  });

  test('a partition that is lost ends its spans, and so does whoever stops listening', () => {
    const { hand, insert, spans, stop } = measured();
    insert(0, [record(0)]);
    hand.meter.event({ kind: 'lost', assignment: assignmentOf(0) });
    expect(spans().map(({ status }) => status.message)).toEqual(['lost']);
    insert(1, [record(0)]);
    stop();
    expect(spans()).toHaveLength(2);
  });

  test('links have a limit, however many traces a batch comes from', () => {
    const { hand, insert, spans } = measured({ maxLinks: 3 });
    insert(
      0,
      Array.from({ length: 50 }, (_, i) => record(i, parent(i + 1))),
    );
    hand.deliver(0, 49, 50);
    expect(spans()[0]!.links).toHaveLength(3);
  });

  test('of a large batch the first thousand headers are looked at, and none where no sampler wants the span', () => {
    const looked: number[] = [];
    const records = Array.from({ length: 1500 }, (_, i) => {
      const each = { ...record(i) };
      return Object.defineProperty(each, 'headers', { get: () => (looked.push(i), []) });
    });
    const { hand, insert } = measured();
    insert(0, records);
    hand.deliver(0, 1499, 1500);
    expect(looked).toHaveLength(1000);
    measured({ isSampled: false }).insert(0, records);
    expect(looked).toHaveLength(1000);
  });
});

describe('the header traceparent', () => {
  const of1 = (text: string) => traceParentOf([['traceparent', Buffer.from(text)]]);
  const good = `00-${trace(10)}-00000000000000ab-01`;

  test.each([good, `cc-${trace(10)}-00000000000000ab-01-what-comes-later`])('%s names a span', (text) =>
    expect(of1(text)).toEqual({ traceId: trace(10), spanId: '00000000000000ab', traceFlags: 1 }),
  );

  test.each([
    '',
    'x',
    good.toUpperCase(),
    `${good}-more`,
    good.replace(/^00/, 'ff'),
    `00-${trace(0)}-00000000000000ab-01`,
    `00-${trace(10)}-0000000000000000-01`,
    good.slice(1),
    `cc-${trace(10)}-00000000000000ab-01-${'x'.repeat(600)}`,
  ])('%j is malformed, and passed over', (text) => expect(of1(text)).toBeUndefined());

  test('its name is taken in any case, and a header without a value is none', () => {
    expect(traceParentOf([['TraceParent', Buffer.from(good)]])).toBeDefined();
    expect(traceParentOf([['traceparent', null]])).toBeUndefined();
    expect(traceParentOf([])).toBeUndefined();
  });
});

describe('metrics', () => {
  test('they are those of Prometheus, by the same names, labels and values', async () => {
    const { hand, metrics } = measured();
    const registry = new Registry();
    registerMetrics(hand.observed, { registry });
    hand.deliver(0, 4, 5).halt(1);
    hand.meter.call('insert', 'flights', 0)();
    const ours = await metrics();
    const theirs = await registry.getMetricsAsJSON();
    const valued = theirs.filter(
      ({ values }) =>
        values.length > 0 && !values.every(({ labels, value }) => value === 0 && Object.keys(labels).length === 0),
    );
    expect(valued.filter(({ name }) => !ours.has(name)).map(({ name }) => name)).toEqual([]);
    expect(ours.get('kcr_rows_total')).toMatchObject([{ attributes: { topic: 'flights' }, value: 5 }]);
    expect(ours.get('kcr_halted_total')).toMatchObject([
      { attributes: { topic: 'flights', code: 'KCR_SCHEMA' }, value: 1 },
    ]);
    expect(ours.get('kcr_lag_records')).toMatchObject([
      { attributes: { topic: 'flights', partition: 0 }, value: 5 },
      { attributes: { topic: 'flights', partition: 1 }, value: 20 },
    ]);
    const [calls] = ours.get('kcr_call_seconds') as unknown as DataPoint<Histogram>[];
    expect(calls).toMatchObject({ attributes: { call: 'insert', outcome: 'done' }, value: { count: 1 } });
    expect(calls!.value.buckets.boundaries[0]).toBe(0.005);
  });

  test('whoever stops is told nothing more', async () => {
    const { hand, metrics, stop } = measured();
    hand.deliver(0, 4, 5);
    stop();
    hand.deliver(0, 9, 5);
    const after = await metrics();
    expect(after.get('kcr_rows_total')).toMatchObject([{ value: 5 }]);
    expect(after.get('kcr_lag_records') ?? []).toEqual([]);
  });
});

describe('what is asked for and cannot be had', () => {
  test('without the package the error says how to install it', () => {
    const load = () => {
      throw new Error('Cannot find module');
    };
    expect(() => openTelemetryApi(load)).toThrow(/npm install @opentelemetry\/api/);
  });

  test.each([-1, 1.5, 1001, Number.NaN])('maxLinks %s is refused', (maxLinks) =>
    expect(() => registerOpenTelemetry(new ByHand().observed, { maxLinks })).toThrow(/`maxLinks`.*0 to 1000/),
  );
});
