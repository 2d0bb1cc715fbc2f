// What a worker of the chaos run tells, one JSON object a line, and what it can be asked to do.
import type { PortCall } from '../../test/support/around-ports.js';

/** The places at which a process can die between two effects; see the ledger's first lines. */
export const windows = ['W1', 'W2', 'W3', 'W4'] as const;
export type Window = (typeof windows)[number];

/** A guard that is taken out, so that the oracle has something to find. */
export const controls = ['tokens', 'read-back', 'at-least-once', 'tombstones'] as const;
export type Control = (typeof controls)[number];

export interface Told {
  readonly atMs: number;
  readonly what:
    | PortCall['what']
    | 'assigned'
    | 'lost'
    | 'released'
    | 'claimed'
    | 'resumed'
    | 'skipped'
    | 'fenced'
    | 'retry'
    | 'verified'
    | 'commitFailed'
    | 'gap'
    | 'restarted'
    | 'kafka'
    | 'filtered'
    | 'tombstones'
    | 'delivered'
    | 'halted'
    | 'window'
    | 'started'
    | 'ended';
  readonly stage?: 'begins' | 'done' | 'failed' | 'dropped';
  readonly topic?: string;
  readonly partition?: number;
  /** Of batches, their calls and what was filtered of them the range as `first-last`, of errors their code, of others a text. */
  readonly detail?: string;
  readonly settles?: number;
  readonly settled?: number;
  readonly missing?: number;
  /** Records that a transform made no row of, or that had no value. */
  readonly filtered?: number;
  readonly tookMs?: number;
  readonly replay?: boolean;
  readonly window?: Window;
}

/** A line on a worker's standard input: die in this window, at its `calls`-th chance from now on. */
export interface Aim {
  readonly window: Window;
  readonly calls: number;
  /** W2: how long after the request was made. */
  readonly afterMs: number;
}

/** A broker has put our fetches off, since they take more than its quota lets them. */
export const isThrottled = (message: string): boolean => message.includes('a quota of the broker is exceeded');
