/**
 * What happened, as people read it: one sentence, and what to do. Never a value of a record. Pure. Imports: events.
 */
import type { IngestEvent, Outcome } from '../events.js';
import { publicText } from './public-text.js';

/** One thing that happened, as it is told. */
export interface NewNotice {
  readonly atMs: number;
  readonly level: 'info' | 'warn' | 'error';
  readonly kind: string;
  readonly topic?: string | undefined;
  readonly partition?: number | undefined;
  readonly text: string;
  readonly hint?: string | undefined;
}

/** What people should see. The same thing told again, of this partition or another, is one notice with a count. */
export interface Notice extends NewNotice {
  /** Tells notices apart; kept while the count grows. */
  readonly id: number;
  /** When it was told first, milliseconds since the epoch. */
  readonly atMs: number;
  /** When it was told last. */
  readonly lastMs: number;
  readonly times: number;
  /** The partition that it was told of last, with its topic. */
  readonly topic?: string | undefined;
  readonly partition?: number | undefined;
  /** The partitions that it was told of: "flights/0-7, flights/12"; undefined: it is about none. */
  readonly where: string | undefined;
}

const texts: Readonly<Record<string, string>> = {
  assigned: 'assigned',
  revoked: 'given back',
  lost: 'taken away; another member has it',
  failed: 'the source cannot go on with it',
  finished: 'its pipeline is complete',
  fenced: 'another process has taken it over',
  healed: 'goes on after a halt',
  restarted: 'the topic was recreated or truncated; it starts again',
  resumed: "the state decides, not the group's committed offset",
  verified: 'a range in doubt was looked up in the table',
  heldBack: 'an open transaction holds records back',
  divided: 'a batch is inserted in parts',
  stuck: 'ClickHouse goes on refusing a range',
  gap: 'records were gone before they were read',
};
const errors: ReadonlySet<string> = new Set(['halted', 'failed', 'abandoned']);
const infos: ReadonlySet<string> = new Set(['assigned', 'revoked', 'finished', 'healed', 'resumed', 'verified']);

/** What is worth to be noted. */
export type Noteworthy = IngestEvent | Extract<Outcome, { kind: 'halted' }>;

export function notice(event: Noteworthy, atMs: number): NewNotice {
  const { kind } = event;
  if (event.kind === 'tableChanged')
    return { atMs, kind, level: event.level, text: `${event.table}: ${event.message}`, hint: event.hint };
  if (event.kind === 'kafka') {
    const { topic, partition } = event.fields;
    return {
      atMs,
      kind,
      level: event.level,
      text: `Kafka: ${event.message}`,
      ...(typeof topic === 'string' ? { topic } : {}),
      ...(typeof partition === 'number' ? { partition } : {}),
    };
  }
  const { topic, partition } = event.assignment;
  const level = errors.has(kind) ? 'error' : infos.has(kind) ? 'info' : 'warn';
  const error = 'error' in event ? event.error : undefined;
  const text = [texts[kind] ?? kind, error === undefined ? '' : `${error.code}: ${publicText(error)}`]
    .filter((part) => part !== '')
    .join(': ');
  return { atMs, kind, level, topic, partition, text, hint: error?.fields.hint };
}
