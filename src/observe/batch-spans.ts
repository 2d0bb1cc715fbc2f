/**
 * One span for each batch on its way into the table. Imports: @opentelemetry/api, events, model, ports.
 */
import type * as Api from '@opentelemetry/api';
import type { Link, Span, Tracer } from '@opentelemetry/api';
import type { IngestEvent, Outcome } from '../events.js';
import type { Records } from '../model/record.js';
import type { InsertBatch } from '../ports.js';
import type { MeterListener } from './meter.js';
import { traceParentOf } from './trace-parent.js';

export interface BatchSpansConfig {
  readonly api: typeof Api;
  readonly tracer: Tracer;
  readonly maxLinks: number;
}

/** Of a batch, whose headers are looked at: it may have a hundred thousand without any. */
const MAX_LOOKED_AT = 1000;

export class BatchSpans implements MeterListener {
  readonly #config: BatchSpansConfig;
  /** By assignment, then by the batch's last offset. */
  readonly #open = new Map<number, Map<number, Span>>();

  constructor(config: BatchSpansConfig) {
    this.#config = config;
  }

  batch({ assignment, afterOffset, lastOffset, records, replay, token }: InsertBatch): void {
    const { api, tracer, maxLinks } = this.#config;
    const spans = this.#open.get(assignment.assignmentId) ?? new Map<number, Span>();
    // An attempt that follows another one.
    if (spans.has(lastOffset)) return;
    const span = tracer.startSpan(`insert ${assignment.topic}`, {
      kind: api.SpanKind.CONSUMER,
      root: true,
      attributes: {
        'messaging.system': 'kafka',
        'messaging.operation.type': 'process',
        'messaging.destination.name': assignment.topic,
        'messaging.destination.partition.id': String(assignment.partition),
        'messaging.batch.message_count': records.length,
        'db.system.name': 'clickhouse',
        'kcr.offset.first': afterOffset + 1,
        'kcr.offset.last': lastOffset,
        'kcr.generation': assignment.generation,
        'kcr.replay': replay,
        ...(token === undefined ? {} : { 'kcr.token': token }),
      },
    });
    if (span.isRecording()) span.addLinks(linksOf(records, maxLinks));
    this.#open.set(assignment.assignmentId, spans.set(lastOffset, span));
  }

  event(event: IngestEvent): void {
    if (!('assignment' in event)) return;
    const { assignmentId } = event.assignment;
    if (event.kind === 'lost' || event.kind === 'released')
      return this.#end(assignmentId, Infinity, (span) => this.#failed(span, event.kind));
    if (event.kind !== 'retry') return;
    const told = { 'kcr.call': event.call, 'kcr.attempt': event.attempt, 'kcr.code': event.error.code };
    for (const span of this.#open.get(assignmentId)?.values() ?? []) span.addEvent('retry', told);
  }

  outcome(outcome: Outcome): void {
    const { assignmentId } = outcome.assignment;
    if (outcome.kind === 'delivered')
      return this.#end(assignmentId, outcome.lastOffset, (span) => {
        span.setAttributes({ 'kcr.rows': outcome.rows, 'kcr.bytes': outcome.bytes });
      });
    // Never the message: a server quotes values of records in it.
    this.#end(assignmentId, Infinity, (span) => this.#failed(span, outcome.error.code));
  }

  /** Whoever listened does so no more. */
  endAll(): void {
    for (const assignmentId of [...this.#open.keys()]) this.#end(assignmentId, Infinity, () => undefined);
  }

  #failed(span: Span, why: string): void {
    span.setAttribute('error.type', why);
    span.setStatus({ code: this.#config.api.SpanStatusCode.ERROR, message: why });
  }

  #end(assignmentId: number, lastOffset: number, finish: (span: Span) => void): void {
    const spans = this.#open.get(assignmentId);
    if (spans === undefined) return;
    for (const [last, span] of spans) {
      if (last > lastOffset) continue;
      finish(span);
      span.end();
      spans.delete(last);
    }
    if (spans.size === 0) this.#open.delete(assignmentId);
  }
}

/** One for each span that the first records come from; headers that are malformed are passed over. */
function linksOf(records: Records, maxLinks: number): Link[] {
  const links = new Map<string, Link>();
  const end = Math.min(records.length, MAX_LOOKED_AT);
  for (let i = 0; i < end && links.size < maxLinks; i++) {
    const parent = traceParentOf(records.at(i)?.headers ?? []);
    if (parent !== undefined)
      links.set(`${parent.traceId}${parent.spanId}`, { context: { ...parent, isRemote: true } });
  }
  return [...links.values()];
}
