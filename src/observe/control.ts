/**
 * What one may tell a running ingestion from outside: pause, resume, drain. How a request is read and answered, and
 * whether its token is the right one. Pure but for the calls of `Controls`. Imports: Node, errors, model, ports.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { asIngestError } from '../errors.js';
import type { PartitionSelection } from '../model/pauses.js';
import type { Pausable } from '../ports.js';
import type { IngestStatus } from './status.js';

/** An ingestion, or what stands for one. */
export interface Controls extends Pausable {
  drain(): void;
  /** Present where the configuration can be read again. */
  reload?(): void;
  status(): IngestStatus;
}

export interface ControlAnswer {
  readonly status: 200 | 400 | 409;
  readonly body: {
    /** What was asked for. */
    readonly asked: string;
    readonly phase: IngestStatus['phase'];
    /** Partitions of this process, and how many of them are paused by now. */
    readonly partitions: number;
    readonly paused: number;
    readonly error?: string;
  };
}

export const controlActions = ['pause', 'resume', 'drain', 'reload'] as const;
type Action = (typeof controlActions)[number];

/** `/api/pause` and the like, of which each is asked for by POST. */
export const controlPath = (action: Action): string => `/api/${action}`;

/** `POST /api/pause?topic=flights&partition=3` and the like. */
export const controlPaths: ReadonlyMap<string, Action> = new Map(
  controlActions.map((action) => [controlPath(action), action]),
);

export function control(controls: Controls, action: Action, query: URLSearchParams): ControlAnswer {
  const told = (status: ControlAnswer['status'], error?: string): ControlAnswer => {
    const { phase, partitions } = controls.status();
    const paused = partitions.filter(({ isPaused }) => isPaused).length;
    const counts = { asked: action, phase, partitions: partitions.length, paused };
    return { status, body: error === undefined ? counts : { ...counts, error } };
  };
  if (controls.status().phase === 'over') return told(409, 'the ingestion is over');
  try {
    const refused = act(controls, action, query);
    return refused === undefined ? told(200) : told(400, refused);
  } catch (thrown) {
    return told(400, asIngestError(thrown, 'KCR_INTERNAL', 'control').message);
  }
}

/** Gives why it was not done. */
function act(controls: Controls, action: Action, query: URLSearchParams): string | undefined {
  const isSelective = action === 'pause' || action === 'resume';
  const odd = [...query.keys()].find((key) => !isSelective || (key !== 'topic' && key !== 'partition'));
  if (odd !== undefined) return `${action} takes no "${odd}"${isSelective ? '; it takes "topic" and "partition"' : ''}`;
  if (action === 'reload') {
    if (controls.reload === undefined) return 'this process cannot read its configuration again';
    controls.reload();
    return undefined;
  }
  if (action === 'drain') {
    controls.drain();
    return undefined;
  }
  const selection = selectionOf(query);
  if (typeof selection === 'string') return selection;
  controls[action](selection);
  return undefined;
}

function selectionOf(query: URLSearchParams): PartitionSelection | undefined | string {
  const topic = query.get('topic');
  const partition = query.get('partition');
  if (topic === null) return partition === null ? undefined : 'a "partition" needs its "topic"';
  if (partition === null) return { topic };
  return /^\d{1,10}$/.test(partition)
    ? { topic, partition: Number(partition) }
    : '"partition" must be a whole number from 0';
}

/** Whether the header `authorization` is `Bearer` and the token. The time it takes does not depend on how much fits. */
export function isAuthorized(header: string | undefined, token: string): boolean {
  const [, given = ''] = /^Bearer +(.*)$/i.exec(header ?? '') ?? [];
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(given), digest(token));
}
