/**
 * What is said of an event: the text is constant, values are fields. Pure. Imports: errors, events.
 */
import type { IngestError } from '../../errors.js';
import type { IngestEvent, Outcome } from '../../events.js';
import type { Place } from './repeats.js';

export type Level = 'debug' | 'info' | 'warn' | 'error';

export interface Line {
  readonly level: Level;
  readonly message: string;
  readonly fields: Readonly<Record<string, unknown>>;
  /** Lines of one kind are counted when they are many. Undefined: this one is always written. */
  readonly kind?: string;
  readonly place?: Place;
}

/** Of a record's value, in a line. */
const LOGGED_VALUE_BYTES = 512;

export function outcomeLine(outcome: Outcome): Line {
  if (outcome.kind === 'halted') {
    const { healsInMs } = outcome;
    const line = errorLine(outcome.error, haltText(healsInMs));
    return { ...line, kind: `halted ${outcome.error.code}`, place: outcome.assignment };
  }
  const { assignment, afterOffset, lastOffset, rows, bytes, replay } = outcome;
  const { topic, partition } = assignment;
  const fields = { topic, partition, first: afterOffset + 1, last: lastOffset, rows, bytes };
  if (replay)
    return { level: 'info', message: 'range that was in doubt is settled', fields, kind: 'settled', place: assignment };
  return { level: 'debug', message: 'delivered', fields };
}

function haltText(healsInMs: number | undefined): string {
  if (healsInMs === undefined) return 'partition halted; the others go on';
  if (healsInMs === 0) return 'partition halted while it was given back, and its next owner tries it again';
  return `partition halted, and tried again in ${Math.ceil(healsInMs / 1000)} s; the others go on`;
}

export function errorLine(error: IngestError, what: string): Line {
  const { topic, partition, offset, first, last, table } = error.fields;
  return {
    level: 'error',
    message: `${what}: ${error.message}`,
    fields: { code: error.code, topic, partition, offset, first, last, table },
  };
}

export function eventLine(event: IngestEvent): Line {
  if (event.kind === 'kafka') return kafkaLine(event);
  if (event.kind === 'tableChanged') return tableLine(event);
  if (event.kind === 'excluded') return excludedLine(event);
  if (event.kind === 'divided') return dividedLine(event);
  if (event.kind === 'stuck') return stuckLine(event);
  if (event.kind === 'heldBack') return heldBackLine(event);
  const { kind, assignment, ...rest } = event;
  const { topic, partition, assignmentId, generation } = assignment;
  const told = 'error' in rest ? { error: rest.error.message, code: rest.error.code } : {};
  const fields = { topic, partition, assignmentId, generation, ...rest, ...told };
  const what = [kind, 'call' in rest ? rest.call : '', 'error' in rest ? rest.error.code : ''].join(' ');
  return { level: levels[kind] ?? 'debug', message: kind, fields, kind: what, place: assignment };
}

const levels: Partial<Readonly<Record<IngestEvent['kind'], Level>>> = {
  assigned: 'info',
  revoked: 'info',
  claimed: 'info',
  verified: 'info',
  resumed: 'info',
  failed: 'warn',
  lost: 'warn',
  fenced: 'warn',
  healed: 'info',
  tombstones: 'info',
  timesOutside: 'warn',
  restarted: 'warn',
  retry: 'warn',
  gap: 'warn',
  corruptBatch: 'warn',
  commitFailed: 'warn',
  abandoned: 'warn',
};

function heldBackLine({
  assignment,
  stableEnd,
  logEnd,
  sinceMs,
  producerId,
  transactionalId,
}: Extract<IngestEvent, { kind: 'heldBack' }>): Line {
  const { topic, partition } = assignment;
  const fields = {
    topic,
    partition,
    first: stableEnd,
    last: logEnd - 1,
    since: new Date(sinceMs).toISOString(),
    producerId,
    transactionalId,
  };
  return {
    level: 'warn',
    message: 'an open transaction holds records back',
    fields,
    kind: 'heldBack',
    place: assignment,
  };
}

function kafkaLine({ level, message, fields }: Extract<IngestEvent, { kind: 'kafka' }>): Line {
  const { topic, partition } = fields;
  const line: Line = { level, message: `kafka: ${message}`, fields, kind: `kafka ${message}` };
  return typeof topic === 'string' && typeof partition === 'number' ? { ...line, place: { topic, partition } } : line;
}

function tableLine({ table, change, level, message, hint }: Extract<IngestEvent, { kind: 'tableChanged' }>): Line {
  return {
    level,
    message: `table changed: ${message}`,
    fields: { table, change, todo: hint },
    kind: `table ${table} ${change}`,
  };
}

function dividedLine({ assignment, first, last, error }: Extract<IngestEvent, { kind: 'divided' }>): Line {
  const { topic, partition } = assignment;
  const fields = { topic, partition, first, last, code: error.code, error: error.detail };
  const why =
    error.fields.oversized === undefined
      ? 'batch refused, and no record named'
      : 'batch is more than one insert may have';
  return { level: 'warn', message: `${why}: inserting it in parts`, fields, kind: 'divided', place: assignment };
}

function stuckLine({ assignment, first, last, attempts, error }: Extract<IngestEvent, { kind: 'stuck' }>): Line {
  const { topic, partition } = assignment;
  const what = first === last ? 'the record at this offset' : 'the records of these offsets';
  const todo =
    `compare ${what} and the table with what the server says: its columns, constraints, DEFAULT, ` +
    'MATERIALIZED, key and TTL expressions, its disks; it is tried until the table takes it';
  const fields = { topic, partition, first, last, attempts, code: error.code, error: error.detail, todo };
  return {
    level: 'warn',
    message: 'refused again and again, and nobody knows whether a record is at fault',
    fields,
    kind: 'stuck',
    place: assignment,
  };
}

/** With the record, since it is nowhere else any more once retention has taken it. So each is written. */
function excludedLine({
  assignment: { topic, partition },
  record,
  error,
  replay,
}: Extract<IngestEvent, { kind: 'excluded' }>): Line {
  const value = record?.value?.toString('utf8', 0, LOGGED_VALUE_BYTES);
  const fields = { topic, partition, offset: error.fields.offset, code: error.code, error: error.detail, value };
  return {
    level: 'warn',
    message: replay ? 'record left out of its batch, as was recorded before' : 'record left out of its batch',
    fields,
  };
}
